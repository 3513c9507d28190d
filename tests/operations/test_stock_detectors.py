"""Stock classes of transformers in whose bodies the count of classes appears too: detectors and mask predictors."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

import surgeon
from surgeon import ReplaceHead

NAMES = ["cat", "dog", "owl"]


def rt_detr():
    backbone = tf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = tf.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[16, 24, 32], d_model=32,
        encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_layers=2, num_queries=6, num_denoising=4,
        decoder_in_channels=[32, 32, 32], encoder_attention_heads=2, decoder_attention_heads=2,
        feat_strides=[8, 16, 32], encode_proj_layers=[2], num_labels=5, use_timm_backbone=False,
    )  # fmt: skip
    return tf.RTDetrForObjectDetection(config)


def maskformer():
    backbone = tf.SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    decoder = tf.DetrConfig(
        d_model=32, decoder_layers=1, encoder_layers=1, decoder_attention_heads=2, encoder_attention_heads=2,
        decoder_ffn_dim=32, encoder_ffn_dim=32, num_queries=6, use_timm_backbone=False, backbone_config=backbone,
    )  # fmt: skip
    config = tf.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, num_labels=5
    )
    return tf.MaskFormerForInstanceSegmentation(config)


def boxes():
    box = {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.4, 0.4, 0.3, 0.3], [0.6, 0.6, 0.3, 0.2]])}
    return {"pixel_values": torch.randn(2, 3, 64, 64), "labels": [box, box]}


def masks():
    mask = torch.zeros(2, 64, 64)
    mask[0, :32] = mask[1, 32:] = 1
    labels = {"mask_labels": [mask] * 2, "class_labels": [torch.tensor([0, 2])] * 2}
    return {"pixel_values": torch.randn(2, 3, 64, 64), **labels}


@pytest.mark.parametrize(("make", "inputs"), [(rt_detr, boxes), (maskformer, masks)])
def test_every_tensor_with_the_class_count_changes(make, inputs, tmp_path):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path / "source")
    edited = surgeon.apply(str(tmp_path / "source"), [ReplaceHead(classes=NAMES)])
    reference = type(edited).from_pretrained(tmp_path / "source", num_labels=3, ignore_mismatched_sizes=True)
    ours, expected = edited.state_dict(), reference.state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in expected.items()}
    assert edited.train()(**inputs()).loss.isfinite()
    surgeon.save(edited, tmp_path / "edited")
    again = type(edited).from_pretrained(tmp_path / "edited").state_dict()
    assert all(torch.equal(again[n], t) for n, t in ours.items())


def test_the_base_of_a_detector_that_scores_proposals_by_class_becomes_the_detector(tmp_path):
    torch.manual_seed(0)
    base = tf.RTDetrModel(rt_detr().config)
    edited = surgeon.apply(base, [ReplaceHead(classes=NAMES)])
    assert type(edited) is tf.RTDetrForObjectDetection
    assert torch.equal(edited.model.encoder_input_proj[0][0].weight, base.encoder_input_proj[0][0].weight)
    loss = edited.train()(**boxes()).loss
    loss.backward()
    made = surgeon.record_of(edited).surgeries[-1].made
    heads = [p for n, p in edited.named_parameters() if n in made and "class_embed" in n]
    assert heads
    assert any(p.grad is not None and p.grad.any() for p in heads)
    surgeon.save(edited, tmp_path / "edited")
    stock = tf.AutoModelForObjectDetection.from_pretrained(tmp_path / "edited")
    assert stock.config.id2label == dict(enumerate(NAMES))


def detr_base():
    backbone = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = tf.DetrConfig(backbone_config=backbone, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes, **heads)
    return tf.DetrModel(config)


def rf_detr_base():
    from zoo.shrinking import transformers_module

    return transformers_module("rf_detr", "RfDetrModel")[0]


@pytest.mark.parametrize("make", [detr_base, rf_detr_base])
def test_a_base_with_heads_for_boxes_and_for_masks_gets_that_for_boxes(make):
    base = make()
    steps = surgeon.plan(base, [ReplaceHead(classes=NAMES)]).steps
    assert any(f"{type(base).__name__.removesuffix('Model')}ForObjectDetection" in note for note in steps[0].notes)


def test_class_weights_of_the_loss_are_as_the_class_makes_them():
    torch.manual_seed(0)
    weight = surgeon.apply(maskformer(), [ReplaceHead(classes=3)]).criterion.empty_weight
    assert weight.tolist() == pytest.approx([1, 1, 1, 0.1])


def test_rows_of_known_classes_stay_in_every_score_of_a_detector():
    torch.manual_seed(0)
    model = rt_detr()
    operation = ReplaceHead(classes=["b", "x"], init="rows", old_classes=["a", "b", "c", "d", "e"])
    edited = surgeon.apply(model, [operation])
    for old, new in ((model.model.enc_score_head, edited.model.enc_score_head), *zip(
        model.model.decoder.class_embed, edited.model.decoder.class_embed, strict=True
    )):  # fmt: skip
        assert torch.equal(new.weight[0], old.weight[1])
    denoising = edited.model.denoising_class_embed.weight
    assert torch.equal(denoising[2], model.model.denoising_class_embed.weight[5])


def d_fine():
    from zoo.shrinking import transformers_module

    return transformers_module("d_fine", "DFineForObjectDetection")[0]


def test_heads_that_hang_in_the_trunk_are_left_out_with_the_others(tmp_path):
    """D-Fine puts its heads into the decoder too, so that the decoder does not move whole."""
    edited = surgeon.apply(d_fine(), [ReplaceHead(task="base")])
    surgeon.save(edited, tmp_path / "edited")
    stock, loading = tf.DFineModel.from_pretrained(tmp_path / "edited", output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(edited) is tf.DFineModel
    assert not any("decoder.class_embed" in name for name in stock.state_dict())
