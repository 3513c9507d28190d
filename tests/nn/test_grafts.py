"""Networks that end early or have branches go through torch.export, strict or not."""

from __future__ import annotations

import io

import pytest
import torch
from families import build, example
from torch import nn
from torch.utils._pytree import tree_leaves

import surgeon
from surgeon.nn.grafts import Tap
from surgeon.operations import Multitask, Truncate

ENDS = {
    "resnet": "layer2.0.conv1", "densenet": "features.denseblock2", "vit": "encoder.layers.encoder_layer_1",
    "bert": "bert.encoder.layer.1", "llama": "model.layers.1",
}  # fmt: skip


def tensors(outputs):
    return [leaf for leaf in tree_leaves(outputs) if torch.is_tensor(leaf)]


def assert_same(outputs, expected):
    for got, wanted in zip(tensors(outputs), tensors(expected), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", ENDS)
def test_a_network_that_ends_early_exports_without_strict(name):
    model = surgeon.apply(build(name), [Truncate(after=ENDS[name])])
    args, kwargs = example(name)
    exported = torch.export.export(model, args, kwargs, strict=False)
    assert_same(exported.module()(*args, **kwargs), model(*args, **kwargs))


@pytest.mark.parametrize("strict", [False, True])
def test_an_early_end_with_a_branch_exports_for_any_batch(strict):
    tasks = {"age": {"kind": "regression", "classes": 1, "at": "layer1.0"}}
    model = surgeon.apply(build("resnet"), [Multitask(tasks=tasks), Truncate(after="layer2")])
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(model, example("resnet")[0], dynamic_shapes=({0: batch},), strict=strict)
    images = example("resnet", batch=5)[0][0]
    assert_same(exported.module()(images), model(images))
    assert not [tap for tap in model.modules() if isinstance(tap, Tap) and tap.value is not None]


def test_what_was_exported_saves_unflattens_and_decomposes():
    model = surgeon.apply(build("resnet"), [Truncate(after="layer2")])
    (images,) = example("resnet")[0]
    exported = torch.export.export(model, (images,), strict=False)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    for network in (
        torch.export.load(file).module(),
        torch.export.unflatten(exported),
        exported.run_decompositions().module(),
    ):
        assert_same(network(images), model(images))


def test_a_sequence_that_ends_early_exports_without_strict():
    layers = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 2)).eval()
    model = surgeon.apply(layers, [Truncate(after="1.0")], inputs=[2, 4])
    x = torch.rand(2, 4)
    assert_same(torch.export.export(model, (x,), strict=False).module()(x), model(x))


def test_a_network_inside_another_exports_and_what_follows_it_too():
    model = surgeon.apply(build("resnet"), [Truncate(after="layer2")])
    around = nn.Sequential(model, nn.Conv2d(128, 4, 1), nn.ReLU()).eval()
    (images,) = example("resnet")[0]
    exported = torch.export.export(around, (images,), strict=False)
    assert_same(exported.module()(images), around(images))
    last = [node for node in exported.graph.nodes if "nn_module_stack" in node.meta][-1]
    assert [path for path, _ in last.meta["nn_module_stack"].values()] == ["", "2"]
