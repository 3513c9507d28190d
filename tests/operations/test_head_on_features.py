"""A new head on features: of a network that was cut, of one without a head, of a site in the middle."""

from __future__ import annotations

import copy

import pytest
import torch
from families import FAMILIES, build, example

import surgeon
from surgeon.operations import Multitask, ReplaceHead, Truncate
from surgeon.testing import check_operations

CUTS = {
    "resnet": "layer3",
    "swin": "features.1",
    "vit": "encoder.layers.encoder_layer_1",
    "convnext": "features.3",
    "video": "layer2",
    "bert": "bert.encoder.layer.1",
    "gpt2": "transformer.h.1",
    "t5": "encoder.block.1",
    "hf_convnext": "convnext.encoder.stages.1",
    "hf_swin": "swin.encoder.layers.0",
    "wav2vec2": "wav2vec2.feature_extractor",
}


@pytest.mark.parametrize("name", sorted(CUTS))
def test_a_head_stands_on_the_features_of_a_truncated_network(name):
    args, kwargs = example(name)
    edited = check_operations(FAMILIES[name], [Truncate(after=CUTS[name]), ReplaceHead(classes=3)], args, kwargs)
    result = edited(*args, **kwargs)
    assert isinstance(result, torch.Tensor)
    assert result.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "pool", "axis", "width"),
    [("resnet", "avg", 1, 256), ("swin", "avg", -1, 16), ("vit", "cls", -1, 32), ("bert", "mean", -1, 32),
     ("video", "avg", 1, 128), ("wav2vec2", "mean", 1, 16), ("hf_convnext", "avg", 1, 32)],
)  # fmt: skip
def test_the_layout_of_the_features_is_known(name, pool, axis, width):
    head = surgeon.apply(build(name), [Truncate(after=CUTS[name]), ReplaceHead(classes=3)]).grafts["logits"].head
    assert (head.pool.kind, head.pool.axis, head.layers.in_features) == (pool, axis, width)


def test_patches_before_the_class_token_are_averaged():
    operations = [Truncate(after="vit.embeddings.patch_embeddings"), ReplaceHead(classes=3)]
    head = surgeon.apply(build("hf_vit"), operations).grafts["logits"].head
    assert head.pool.kind == "mean"


@pytest.mark.parametrize("name", ["bert", "bert_base", "gpt2"])
def test_padding_does_not_reach_the_logits(name):
    head = ReplaceHead(classes=3, task="graft")
    operations = [head] if name == "bert_base" else [Truncate(after=CUTS[name]), head]
    edited = surgeon.apply(build(name), operations)
    _, kwargs = example(name)
    kwargs["attention_mask"][:, 5:] = 0
    changed = {**kwargs, "input_ids": kwargs["input_ids"].clone()}
    changed["input_ids"][:, 5:] = 3
    with torch.no_grad():
        assert torch.allclose(edited(**kwargs), edited(**changed), atol=1e-6)
        assert torch.allclose(edited(kwargs["input_ids"][:, :5]), edited(**kwargs), atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "conv", "hidden": [8], "pool": "avg"},
        {"kind": "conv"},
        {"pool": "none"},
        {"kind": "cosine"},
        {"kind": "mlp", "pool": "gem"},
    ],
    ids=str,
)
def test_heads_on_maps(fields):
    args, kwargs = example("resnet")
    edited = check_operations(
        FAMILIES["resnet"], [Truncate(after="layer3"), ReplaceHead(classes=3, **fields)], args, kwargs
    )
    dense = fields.get("pool", "none" if fields.get("kind") == "conv" else "avg") == "none"
    assert edited(*args).shape == ((2, 3, 4, 4) if dense else (2, 3))


def test_a_later_head_takes_the_place_of_the_one_on_the_features():
    first = surgeon.apply(
        build("resnet"), [Truncate(after="layer2"), ReplaceHead(classes=["cat", "dog", "owl", "eel"])]
    )
    operation = ReplaceHead(classes=["eel", "yak"], init="rows", old_classes=["cat", "dog", "owl", "eel"])
    second = surgeon.apply(first, [operation])
    old, new = (m.grafts["logits"].head.layers for m in (first, second))
    assert torch.equal(new.weight[0], old.weight[3])
    assert second(torch.rand(1, 3, 64, 64)).shape == (1, 2)
    assert list(second.grafts) == ["logits"]


@pytest.mark.parametrize("name", ["resnet", "bert"])
def test_a_head_on_features_compiles_whole(name):
    args, kwargs = example(name)
    edited = surgeon.apply(build(name), [Truncate(after=CUTS[name]), ReplaceHead(classes=3)])
    compiled = torch.compile(copy.deepcopy(edited), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(*args, **kwargs), edited(*args, **kwargs), atol=1e-5)


def test_a_task_head_can_be_replaced_by_its_site():
    model = surgeon.apply(build("resnet"), [Multitask(tasks={"species": {"classes": 4, "hidden": [8]}})])
    edited = surgeon.apply(model, [ReplaceHead(classes=6, at="grafts.species.head")])
    assert edited(torch.rand(2, 3, 64, 64)).species.shape == (2, 6)
    assert torch.equal(edited.fc.weight, model.fc.weight)


# ---- what is refused
