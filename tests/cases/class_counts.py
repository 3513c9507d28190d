"""Every tensor that has the class count changes, as from_pretrained changes it (issue 14)."""

from __future__ import annotations

from typing import Any

import torch

from cases.harness import Outcome, case, either, expect, right, succeed
from cases.material import Material
from cases.names import head


def detector(name: str) -> tuple[type, Any]:
    """A small detector or segmenter with 7 classes."""
    import transformers

    T = transformers
    back = T.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    small = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "num_queries": 6,
        "num_labels": 7,
    }
    if name == "RT-DETR":
        stages = T.RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 1, 1, 1],
            out_features=["stage2", "stage3", "stage4"],
        )
        return T.RTDetrForObjectDetection, T.RTDetrConfig(
            backbone_config=stages,
            backbone=None,
            encoder_hidden_dim=16,
            encoder_in_channels=[8, 16, 16],
            feat_strides=[8, 16, 32],
            encoder_layers=1,
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            d_model=32,
            num_queries=6,
            decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16,
            decoder_layers=2,
            decoder_attention_heads=2,
            num_denoising=4,
            hidden_expansion=1.0,
            num_labels=7,
        )
    if name == "Deformable DETR":
        return T.DeformableDetrForObjectDetection, T.DeformableDetrConfig(
            **small, use_timm_backbone=False, backbone=None, backbone_config=back, num_feature_levels=3
        )
    if name == "Deformable DETR, two stages":
        return T.DeformableDetrForObjectDetection, T.DeformableDetrConfig(
            **small,
            use_timm_backbone=False,
            backbone=None,
            backbone_config=back,
            num_feature_levels=3,
            two_stage=True,
            two_stage_num_proposals=6,
            with_box_refine=True,
        )
    if name == "DETR":
        return T.DetrForObjectDetection, T.DetrConfig(
            **small,
            use_timm_backbone=False,
            backbone=None,
            backbone_config=T.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
            ),
        )
    if name == "Conditional DETR":
        return T.ConditionalDetrForObjectDetection, T.ConditionalDetrConfig(
            **small,
            use_timm_backbone=False,
            backbone=None,
            backbone_config=T.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
            ),
        )
    if name == "YOLOS":
        return T.YolosForObjectDetection, T.YolosConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=[64, 64],
            patch_size=16,
            num_detection_tokens=6,
            num_labels=7,
        )
    swin = T.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    if name == "Mask2Former":
        return T.Mask2FormerForUniversalSegmentation, T.Mask2FormerConfig(
            backbone_config=swin,
            hidden_dim=32,
            feature_size=32,
            mask_feature_size=32,
            encoder_layers=1,
            decoder_layers=3,
            num_attention_heads=2,
            dim_feedforward=16,
            encoder_feedforward_dim=16,
            num_queries=5,
            num_labels=7,
        )
    if name == "MaskFormer":
        return T.MaskFormerForInstanceSegmentation, T.MaskFormerConfig(
            backbone_config=swin,
            decoder_config=T.DetrConfig(
                d_model=32,
                encoder_layers=1,
                decoder_layers=2,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                num_queries=5,
                use_timm_backbone=False,
                backbone=None,
                backbone_config=back,
            ),
            fpn_feature_size=32,
            mask_feature_size=32,
            num_labels=7,
        )
    if name == "Segformer":
        return T.SegformerForSemanticSegmentation, T.SegformerConfig(
            num_encoder_blocks=4,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            num_labels=7,
        )
    return T.UperNetForSemanticSegmentation, T.UperNetConfig(
        backbone_config=back_of_four(),
        hidden_size=16,
        auxiliary_channels=16,
        auxiliary_in_channels=16,
        num_labels=7,
        pool_scales=[1, 2],
    )


def back_of_four() -> Any:
    """A backbone with four maps."""
    import transformers

    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def with_labels(name: str) -> dict[str, Any]:
    """Inputs with labels of three classes."""
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if "ormer" in name and "Seg" not in name:
        masks = [torch.zeros(2, 64, 64) for _ in range(2)]
        for mask in masks:
            mask[0, :32], mask[1, 32:] = 1, 1
        return {"pixel_values": x, "mask_labels": masks, "class_labels": [torch.tensor([0, 2])] * 2}
    if name in ("Segformer", "UperNet"):
        return {"pixel_values": x, "labels": torch.randint(0, 3, (2, 64, 64))}
    boxes = [{"class_labels": torch.tensor([0, 2]), "boxes": torch.rand(2, 4) * 0.4 + 0.25} for _ in range(2)]
    return {"pixel_values": x, "labels": boxes}


DETECTORS = (
    "RT-DETR",
    "Deformable DETR",
    "Deformable DETR, two stages",
    "DETR",
    "Conditional DETR",
    "YOLOS",
    "Mask2Former",
    "MaskFormer",
    "Segformer",
    "UperNet",
)


@case("14.counts", of=DETECTORS, quick=["YOLOS"])
def every_tensor_with_the_class_count(material: Material, name: str) -> Outcome:
    """Keys and shapes of from_pretrained(num_labels=3, ignore_mismatched_sizes=True); a loss that is finite."""
    import surgeon

    cls, config = detector(name)
    torch.manual_seed(0)
    folder = material.folder / "model"
    cls(config).save_pretrained(folder)

    def attempt() -> Outcome:
        succeed(
            "apply", material.recipe([head(["cat", "dog", "bird"])]), folder, "-o", material.folder / "out", "--quiet"
        )
        stock = cls.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
        expected = {key: tuple(value.shape) for key, value in stock.state_dict().items()}
        for model in (surgeon.load(material.folder / "out"), cls.from_pretrained(material.folder / "out")):
            mine = {key: tuple(value.shape) for key, value in model.state_dict().items()}
            differing = {key: (mine.get(key), shape) for key, shape in expected.items() if mine.get(key) != shape}
            expect(
                not differing and set(mine) == set(expected),
                f"shapes differ from from_pretrained's: {differing or set(mine) ^ set(expected)}",
            )
            try:
                loss = model.train()(**with_labels(name)).loss
            except ImportError as error:
                return right(f"shapes equal; no loss here: {error!s:.60}")
            expect(bool(torch.isfinite(loss)), f"loss {loss}")
        return right(f"{len(expected)} tensors, loss {float(loss):.2f}")

    return either(attempt)
