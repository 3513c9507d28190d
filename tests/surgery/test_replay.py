"""Replaying recorded operations: the same network again, without a forward and without weights."""

from __future__ import annotations

import json

import pytest
import torch
from families import build, example
from safetensors.torch import load_file, save_file
from torch import nn

import surgeon
from surgeon import plugins
from surgeon.checkpoint.digests import sealed
from surgeon.errors import ArchitectureError
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation
from surgeon.operations import Freeze, ReplaceHead, Truncate
from surgeon.surgery.opened import OpenOptions
from surgeon.surgery.replay import open_network

RECIPE = [Truncate(after="layer2"), ReplaceHead(classes=3), Freeze(up_to="layer1")]


class Reader(Operation):
    """Reads weights while it edits, which a replay cannot: it takes the recorded answer."""

    def apply(self, model, surgery):
        """Insert a layer that depends on the weights."""
        factor = surgery.recall("sum", lambda: float(surgery.weight(surgery.model.fc.bias).sum()))
        surgery.insert("fc", surgery.new(nn.Threshold, factor, 0.0))
        return model


class Bundle:
    @hookimpl
    def surgeon_operations(self):
        return [Reader]


@pytest.fixture(scope="module")
def options():
    loaded = plugins.load(installed=False)
    loaded.register(Bundle(), "bundle")
    return OpenOptions(plugins=loaded)


@pytest.fixture
def artifact(tmp_path):
    return surgeon.save(surgeon.apply(build("resnet"), RECIPE), tmp_path / "out")


def test_a_replay_runs_no_forward(artifact, monkeypatch):
    monkeypatch.setattr("surgeon.surgery.inspection.trace", lambda *_, **__: pytest.fail("a forward was run"))
    again = surgeon.load(artifact)
    args, _ = example("resnet")
    with torch.no_grad():
        assert again(*args).shape == (2, 3)


def test_every_kept_tensor_has_its_place_and_dtype(artifact, options):
    opened = open_network(artifact, options)
    opened.flow().check()
    assert {name for name, _ in opened.root.named_parameters()} <= set(opened.checkpoint.entries)
    assert not opened.root.layer1[0].conv1.weight.requires_grad


def test_a_tensor_too_many_is_named(artifact, options):
    state = load_file(artifact / "model.safetensors")
    save_file({**state, "stray": torch.zeros(1)}, artifact / "model.safetensors")
    with pytest.raises(ArchitectureError, match=r"0 lacking \[\], 1 too many \['stray'\]"):
        open_network(artifact, options)


def test_a_tensor_of_another_shape_is_named(artifact, options):
    state = load_file(artifact / "model.safetensors")
    name = next(name for name in state if name.endswith("conv1.weight"))
    save_file({**state, name: torch.zeros(1, 2, 3, 4)}, artifact / "model.safetensors")
    with pytest.raises(ArchitectureError, match=rf"{name} has shape \(1, 2, 3, 4\)"):
        open_network(artifact, options)


def test_operations_of_a_missing_plugin_are_named_with_it(artifact, options):
    manifest = json.loads((artifact / "surgeon.json").read_text())
    last = manifest["record"]["surgeries"][-1]
    last["operations"] = [{"op": "prune_heads"}]
    last["plugins"] = {"operation prune_heads": "pruner"}
    (artifact / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(surgeon.SurgeonError, match="pruner"):
        open_network(artifact, options)


def test_what_an_operation_read_from_weights_is_replayed_from_the_record(options, tmp_path):
    edited = surgeon.apply(build("resnet"), [Reader()], plugins=options.plugins)
    path = surgeon.save(edited, tmp_path / "out")
    assert open_network(path, options).root.fc.inserted.module.threshold == edited.fc.inserted.module.threshold != 0
    manifest = json.loads((path / "surgeon.json").read_text())
    manifest["record"]["surgeries"][-1]["answers"] = {}
    (path / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ArchitectureError, match="reads weights while it edits cannot be replayed"):
        open_network(path, options)
