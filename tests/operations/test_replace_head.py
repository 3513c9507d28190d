"""A new head: in place where there is one, on top of features where there is none."""

from __future__ import annotations

import pytest
import torch
import torchvision.models as tv
import transformers as tf
from families import CLASSES, FAMILIES, build, detection_targets, example
from pydantic import ValidationError
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.nn.features import main_tensor
from surgeon.nn.pooling import Pool
from surgeon.operations import ReplaceHead, Truncate
from surgeon.testing import check_operations

LANGUAGE = {"gpt2": "lm_head", "llama": "lm_head", "t5": "lm_head", "whisper": "proj_out"}
DETECTORS = {"fasterrcnn", "ssdlite"}
CLASSIFIERS = sorted(set(FAMILIES) - set(LANGUAGE) - DETECTORS - {"bert_base"})
NAMES = ["cat", "dog", "owl", "eel", "bee", "ant", "fox"]


def outputs_of(model, name):
    args, kwargs = example(name)
    with torch.no_grad():
        return main_tensor(model(*args, **kwargs))


def detector_loss(model):
    images, _ = example("fasterrcnn")
    return sum(model(*images, detection_targets()).values())


@pytest.mark.parametrize("name", [*CLASSIFIERS, "bert_base"])
def test_the_head_has_the_new_classes_and_keeps_every_promise(name):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [ReplaceHead(classes=NAMES)], args, kwargs)
    assert outputs_of(edited, name).shape[1] == len(NAMES)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_only_the_head_differs_from_the_source(name):
    model = build(name)
    edited = surgeon.apply(model, [ReplaceHead(classes=7)])
    before, after = model.state_dict(), edited.state_dict()
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key].shape != after[key].shape}
    assert changed
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - changed)
    assert {after[key].shape[0] for key in changed} == {7}


@pytest.mark.parametrize("name", ["bert", "gpt2_classifier", "hf_vit", "wav2vec2"])
def test_a_transformers_config_knows_the_new_labels(name, tmp_path):
    if name == "gpt2_classifier":
        config = tf.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2, n_positions=64, pad_token_id=0)
        model = tf.GPT2ForSequenceClassification(config)
    else:
        model = build(name)
    edited = surgeon.apply(model, [ReplaceHead(classes=NAMES, problem_type="multi_label_classification")])
    assert edited.config.id2label == dict(enumerate(NAMES))
    assert edited.config.label2id["owl"] == 2
    assert edited.config.num_labels == getattr(edited, "num_labels", 7) == 7
    assert edited.config.problem_type == "multi_label_classification"
    assert model.config.num_labels != 7
    surgeon.save(edited, tmp_path / "edited")
    stock = type(model).from_pretrained(tmp_path / "edited").eval()
    for key, value in edited.state_dict().items():
        assert torch.equal(stock.state_dict()[key], value)


def test_the_transformers_loss_works_with_the_new_labels():
    edited = surgeon.apply(build("bert"), [ReplaceHead(classes=7)])
    _, kwargs = example("bert")
    assert edited(**kwargs, labels=torch.tensor([6, 0])).loss.isfinite()


# ---- kinds


@pytest.mark.parametrize("name", ["resnet", "vit", "bert", "hf_swin"])
@pytest.mark.parametrize(
    "kind",
    [{"kind": "mlp", "hidden": [8], "dropout": 0.1}, {"kind": "cosine"}, {"dropout": 0.5}, {"kind": "mlp"}],
    ids=str,
)
def test_every_kind_of_head_takes_the_place_of_a_linear_one(name, kind):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [ReplaceHead(classes=3, **kind)], args, kwargs)
    assert outputs_of(edited, name).shape == (2, 3)


@pytest.mark.parametrize("kind", [{"kind": "conv", "hidden": [8]}, {"kind": "mlp"}, {"dropout": 0.1}], ids=str)
@pytest.mark.parametrize("name", ["fcn", "lraspp"])
def test_segmentation_heads_stay_dense(name, kind):
    edited = surgeon.apply(build(name), [ReplaceHead(classes=3, **kind)])
    assert outputs_of(edited, name).shape == (2, 3, 64, 64)


def test_a_convolution_head_keeps_its_kernel():
    model = tv.squeezenet1_1(num_classes=5)
    edited = surgeon.apply(model, [ReplaceHead(classes=3)])
    assert edited.classifier[1].kernel_size == model.classifier[1].kernel_size
    assert edited.num_classes == 3
    assert edited(torch.rand(1, 3, 64, 64)).shape == (1, 3)


class Turned(nn.Conv1d):
    """Reads tokens ``(batch, length, channels)``, as the CTC head of Lasr does."""

    def forward(self, features):
        return super().forward(features.transpose(1, 2)).transpose(1, 2)


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.head = Turned(4, 5, kernel_size=1)

    def forward(self, values):
        return self.head(self.embed(values))


def test_a_head_with_a_forward_of_its_own_is_followed_by_one_of_its_class():
    given = {"inputs": {"values": [2, 6, 3]}, "roles": {"head": "head"}}
    edited = surgeon.apply(Reader(), [ReplaceHead(classes=2)], **given)
    assert type(edited.head) is Turned
    assert edited(torch.rand(2, 6, 3)).shape == (2, 6, 2)
    with pytest.raises(OperationError, match="only a layer of that class can replace it"):
        surgeon.apply(Reader(), [ReplaceHead(classes=2, dropout=0.1)], **given)


@pytest.mark.parametrize("name", ["resnet", "swin", "densenet", "bert", "hf_vit"])
def test_without_a_head_the_features_come_out_and_a_later_head_fits(name):
    args, kwargs = example(name)
    bare = check_operations(FAMILIES[name], [ReplaceHead(kind="none")], args, kwargs)
    features = outputs_of(bare, name)
    again = surgeon.apply(bare, [ReplaceHead(classes=3)])
    assert outputs_of(again, name).shape == (*features.shape[:-1], 3)


def test_the_new_head_takes_the_dtype_of_the_old():
    edited = surgeon.apply(build("resnet").to(torch.bfloat16), [ReplaceHead(classes=3, kind="mlp")])
    assert {p.dtype for p in edited.parameters()} == {torch.bfloat16}


def test_another_pool_takes_the_place_of_the_networks_own():
    edited = check_operations(FAMILIES["resnet"], [ReplaceHead(classes=3, pool="gem")], *example("resnet"))
    assert isinstance(edited.avgpool, Pool)
    assert outputs_of(edited, "resnet").shape == (2, 3)


def test_a_pool_that_cannot_take_over_is_refused():
    for name in ("vgg", "vit", "densenet"):
        with pytest.raises(OperationError, match=r"pools on its way|more than one position"):
            surgeon.plan(build(name), [ReplaceHead(classes=3, pool="gem")])


# ---- values


def test_rows_of_shared_names_are_copied():
    model = build("bert")
    model.config.id2label = dict(enumerate(["ant", "bat", "cat", "dog", "emu"]))
    edited = surgeon.apply(model, [ReplaceHead(classes=["dog", "owl", "ant"], init="rows")])
    fresh = surgeon.apply(model, [ReplaceHead(classes=["dog", "owl", "ant"])])
    for part in ("weight", "bias"):
        old, new, other = (getattr(m.classifier, part) for m in (model, edited, fresh))
        assert torch.equal(new[[0, 2]], old[[3, 0]])
        assert torch.equal(new[1], other[1])


def test_rows_follow_a_map_by_name_and_by_index():
    model = build("resnet")
    operation = ReplaceHead(
        classes=["a", "b"], init="rows", rows={"a": "four", "b": 1}, old_classes=["zero", "one", "two", "three", "four"]
    )
    edited = surgeon.apply(model, [operation])
    assert torch.equal(edited.fc.weight, model.fc.weight[[4, 1]])
    by_number = surgeon.apply(model, [ReplaceHead(classes=2, init="rows", rows={"1": 3})])
    assert torch.equal(by_number.fc.weight[1], model.fc.weight[3])


@pytest.mark.parametrize("name", ["resnet", "bert", "fcn"])
def test_a_head_of_zeros_gives_zeros(name):
    edited = surgeon.apply(build(name), [ReplaceHead(classes=3, init="zeros")])
    assert outputs_of(edited, name).abs().max() == 0


def test_rows_without_names_or_matches_are_refused_with_the_way_out():
    model = build("resnet")
    with pytest.raises(OperationError, match="which classes both heads have"):
        surgeon.plan(model, [ReplaceHead(classes=3, init="rows")])
    old = ["a", "b", "c", "d", "e"]
    with pytest.raises(OperationError, match="no name in common"):
        surgeon.plan(model, [ReplaceHead(classes=["x"], init="rows", old_classes=old)])
    with pytest.raises(OperationError, match="5 classes, and 2 names"):
        surgeon.plan(model, [ReplaceHead(classes=["a"], init="rows", old_classes=old[:2])])
    with pytest.raises(OperationError, match="no old class is called 'zz'"):
        surgeon.plan(model, [ReplaceHead(classes=["x"], init="rows", rows={"x": "zz"}, old_classes=old)])
    with pytest.raises(OperationError, match="from 0 to 4"):
        surgeon.plan(model, [ReplaceHead(classes=["x"], init="rows", rows={"x": 5})])
    with pytest.raises(OperationError, match="same features"):
        surgeon.plan(model, [ReplaceHead(classes=["a"], init="rows", old_classes=old, kind="mlp", hidden=[8])])


# ---- auxiliary heads


def test_auxiliary_heads_are_replaced_dropped_or_kept():
    replaced, dropped, kept = (
        surgeon.apply(build("googlenet"), [ReplaceHead(classes=7, aux=aux)]) for aux in ("replace", "drop", "keep")
    )
    images = torch.rand(2, 3, 64, 64)
    assert [part.shape[1] for part in replaced.train()(images)] == [7, 7, 7]
    assert dropped.train()(images).shape == (2, 7)
    assert dropped.aux1 is None
    assert not any("aux" in key for key in dropped.state_dict())
    assert kept.aux1.fc2.out_features == CLASSES


def test_a_segmentation_network_without_its_auxiliary_head_reloads(tmp_path):
    edited = check_operations(FAMILIES["fcn"], [ReplaceHead(classes=3, aux="drop")], *example("fcn"))
    assert list(edited(*example("fcn")[0])) == ["out"]


# ---- detection


def test_two_stage_detectors_count_the_background_as_class_0():
    model = build("fasterrcnn")
    operation = ReplaceHead(classes=["b", "new"], init="rows", old_classes=["a", "b", "c", "d"])
    edited = check_operations(FAMILIES["fasterrcnn"], [operation], *example("fasterrcnn"), loss=detector_loss)
    old, new = model.roi_heads.box_predictor, edited.roi_heads.box_predictor
    assert new.cls_score.out_features == 3
    assert new.bbox_pred.out_features == 12
    edited = surgeon.apply(model, [operation])
    new = edited.roi_heads.box_predictor
    assert torch.equal(new.cls_score.weight[:2], old.cls_score.weight[[0, 2]])
    assert torch.equal(new.bbox_pred.weight[4:8], old.bbox_pred.weight[8:12])
    assert "0 is the background" in surgeon.plan(model, [operation]).steps[0].notes[-1]


def test_one_stage_detectors_know_how_many_classes_they_reshape_to():
    model = build("ssdlite")
    edited = surgeon.apply(model, [ReplaceHead(classes=2)])
    assert edited.head.classification_head.num_columns == 3
    args, _ = example("ssdlite")
    losses = edited.train()(*args, detection_targets())
    assert all(loss.isfinite() for loss in losses.values())
    assert max(int(detected["labels"].max()) for detected in edited.eval()(*args) if len(detected["labels"])) <= 2


@pytest.mark.parametrize("builder", [tv.detection.retinanet_resnet50_fpn, tv.detection.fcos_resnet50_fpn])
def test_focal_detectors_keep_their_prior_and_train_on_labels_from_1(builder):
    def make():
        return builder(weights=None, weights_backbone=None, num_classes=5, min_size=64, max_size=64)

    torch.manual_seed(0)
    model = make()
    operation = ReplaceHead(classes=["new", "c"], init="rows", old_classes=["a", "b", "c", "d"])
    edited = surgeon.apply(model, [operation])
    head, old = edited.head.classification_head, model.head.classification_head
    assert head.num_classes == 3
    per_anchor = head.cls_logits.weight.reshape(head.num_anchors, 3, -1)
    assert torch.equal(per_anchor[:, 2], old.cls_logits.weight.reshape(head.num_anchors, 5, -1)[:, 3])
    assert per_anchor[:, 1].std() < 0.02
    assert torch.allclose(head.cls_logits.bias.sigmoid(), torch.tensor(0.01), atol=1e-6)
    losses = edited.train()([torch.rand(3, 64, 64)] * 2, detection_targets())
    assert all(loss.isfinite() for loss in losses.values())
    assert "output 0 stays unused" in surgeon.plan(model, [operation]).steps[0].notes[-1]


def test_masks_follow_the_classes():
    model = tv.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5)
    edited = surgeon.apply(model, [ReplaceHead(classes=2)])
    assert edited.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 3


def test_a_detectors_head_keeps_its_form():
    with pytest.raises(OperationError, match="kind, hidden cannot change it"):
        surgeon.plan(build("fasterrcnn"), [ReplaceHead(classes=2, kind="mlp", hidden=[4])])


# ---- language models


@pytest.mark.parametrize("name", sorted(LANGUAGE))
def test_a_vocabulary_is_not_a_set_of_classes(name):
    with pytest.raises(OperationError, match="tokens") as caught:
        surgeon.plan(build(name), [ReplaceHead(classes=3, task="graft")])
    assert "multitask" in str(caught.value)


def test_a_replaced_vocabulary_head_leaves_the_embedding_alone():
    model = build("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    edited = surgeon.apply(model, [ReplaceHead(classes=3, at="lm_head")])
    assert torch.equal(edited.transformer.wte.weight, model.transformer.wte.weight)
    assert edited.lm_head.weight.shape == (3, 32)
    assert edited.config.tie_word_embeddings is False
    assert model.config.tie_word_embeddings is True


# ---- on top of features


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "classes says how many"),
        ({"classes": 0}, "greater than 0"),
        ({"classes": []}, "at least 1"),
        ({"classes": ["a", "a"]}, "named twice: a"),
        ({"classes": 3, "kind": "none"}, "takes no classes"),
        ({"classes": 3, "hidden": [4]}, "hidden layers are for"),
        ({"classes": 3, "rows": {"a": "b"}}, "for init: rows"),
        ({"classes": 3, "kind": "cosine", "init": "zeros"}, "no direction"),
        ({"classes": 3, "dropout": 1.0}, "less than 1"),
        ({"kind": "none", "init": "zeros"}, "leaves no head"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        ReplaceHead(**fields)


@pytest.mark.parametrize(
    ("name", "operations", "words"),
    [
        ("bert_base", [ReplaceHead(kind="none")], "no head to remove"),
        ("bert_base", [ReplaceHead(classes=["a"], init="rows", old_classes=["a"])], "no old head"),
        ("lraspp", [ReplaceHead(kind="none")], "several parts"),
        ("resnet", [ReplaceHead(classes=3, kind="conv")], "no positions"),
        ("resnet", [ReplaceHead(classes=3, at="maxpool")], "without a linear layer"),
        ("fcn", [ReplaceHead(classes=3, kind="cosine")], "is a convolution"),
        ("resnet", [Truncate(after="avgpool"), ReplaceHead(classes=3, pool="cls")], "class token"),
        ("bert", [Truncate(after="bert.pooler"), ReplaceHead(classes=3, pool="gem")], "no positions left"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_way_out(name, operations, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build(name), operations)


def test_the_problem_type_decides_the_loss():
    assert ReplaceHead(classes=3).objectives() == []
    (objective,) = ReplaceHead(classes=3, problem_type="multi_label_classification").objectives()
    assert (objective.output, objective.loss) == ("logits", "bce")
