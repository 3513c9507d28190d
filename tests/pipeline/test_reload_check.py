"""What apply finds out about what it has just written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import surgeon
from surgeon import plugins
from surgeon.errors import ArchitectureError, VerificationError
from surgeon.interfaces.hooks import hookimpl
from surgeon.operations import Freeze, ReplaceHead
from surgeon.pipeline import reload_check as reloading
from surgeon.pipeline.prepare import Prepared, prepare
from surgeon.plugins import Plugins
from surgeon.surgery.context import Surgery

FRESH = itertools.count(1)


class Scale(nn.Module):
    """Multiplies by a number that no state dict holds."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class Forgetful(surgeon.Operation):
    """Put in a module that is another one each time, so that a replay does not give the same network."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        surgery.insert(surgery.site("conv1"), surgery.new(Scale, float(next(FRESH))), name="scale")
        return surgery.model


class Bundle:
    @hookimpl
    def surgeon_operations(self) -> list[type[surgeon.Operation]]:
        return [Forgetful]


@pytest.fixture(scope="module")
def scale_plugin() -> Plugins:
    loaded = plugins.load(installed=False)
    loaded.register(Bundle(), "bundle")
    return loaded


@pytest.fixture(scope="module", params=["zip", "legacy"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    state = torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=request.param == "zip")
    return path


@pytest.fixture
def prepared(checkpoint: Path, scale_plugin: Plugins) -> Prepared:
    return prepare(checkpoint, [ReplaceHead(classes=3), Freeze(up_to="stage2")], plugins=scale_plugin)


def change(path: Path, name: str, byte: int = 0) -> None:
    """Change one byte of a tensor in a safetensors file."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + (start if byte >= 0 else end) + byte] ^= 1
    path.write_bytes(data)


KEPT, NEW, TOTAL = "stage3.0.branch2.5.weight", "fc.weight", 338


@pytest.mark.parametrize(
    ("run", "compared", "expected"),
    [(2**27, 2**28, (TOTAL, 1)), (0, 2**28, (TOTAL - 2, None)), (0, 336 * 64, (TOTAL - 2, None))],
    ids=["small", "middle", "large"],
)
def test_a_faithful_artifact_passes_and_the_report_says_what_was_compared(
    prepared, scale_plugin, tmp_path, monkeypatch, run, compared, expected
):
    monkeypatch.setattr(reloading, "RUN", run)
    monkeypatch.setattr(reloading, "COMPARED", compared)
    path = prepared.write(tmp_path / "net.safetensors")
    reloaded = reloading.check_streamed(prepared, path, scale_plugin)
    assert (reloaded.tensors, reloaded.outputs) == expected
    assert reloaded.total == TOTAL
    assert (reloaded.note is None) is (run > 0)
    assert ("first and last 0 kB" in (reloaded.note or "")) is (compared < 2**28)


@pytest.mark.parametrize(
    ("run", "compared", "name", "byte"),
    [
        (2**27, 2**28, KEPT, 100),
        (2**27, 2**28, NEW, 100),
        (0, 2**28, KEPT, 100),
        (0, 336 * 64, KEPT, 31),
        (0, 336 * 64, KEPT, -1),
    ],
)
def test_a_byte_that_changed_on_the_way_is_found(
    prepared, scale_plugin, tmp_path, monkeypatch, run, compared, name, byte
):
    monkeypatch.setattr(reloading, "RUN", run)
    monkeypatch.setattr(reloading, "COMPARED", compared)
    monkeypatch.setattr(reloading, "CHUNK", 64)
    path = prepared.write(tmp_path / "net.safetensors")
    change(path, name, byte)
    with pytest.raises(VerificationError, match=name.replace(".", r"\.")):
        reloading.check_streamed(prepared, path, scale_plugin)


def test_a_network_that_is_rebuilt_otherwise_is_found_by_its_outputs(checkpoint, scale_plugin, tmp_path):
    prepared = prepare(checkpoint, [Forgetful()], plugins=scale_plugin)
    path = prepared.write(tmp_path / "artifact")
    with pytest.raises(VerificationError, match="gives other outputs than the network that was written: output"):
        reloading.check_streamed(prepared, path, scale_plugin)


def test_a_tensor_that_is_gone_is_found_at_any_size(prepared, scale_plugin, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    path = prepared.write(tmp_path / "artifact")
    state = load_file(path / "model.safetensors")
    save_file({name: value for name, value in state.items() if name != KEPT}, path / "model.safetensors")
    for run in (2**27, 0):
        monkeypatch.setattr(reloading, "RUN", run)
        with pytest.raises(ArchitectureError, match="1 lacking"):
            reloading.check_streamed(prepared, path, scale_plugin)


def test_the_network_in_memory_is_left_as_it_is(prepared, scale_plugin, tmp_path):
    path = prepared.write(tmp_path / "artifact")
    model = prepared.materialise()
    model.train()
    objects = {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    random = torch.random.get_rng_state()
    assert reloading.check_in_memory(model, prepared, path, scale_plugin).outputs == 1
    assert {name: id(tensor) for name, tensor in model.state_dict(keep_vars=True).items()} == objects
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_forward_that_is_not_possible_is_said(checkpoint, scale_plugin, tmp_path):
    prepared = prepare(checkpoint, [ReplaceHead(classes=3)], inputs=[[2, 4, 64, 64]], plugins=scale_plugin)
    path = prepared.write(tmp_path / "artifact")
    reloaded = reloading.check_streamed(prepared, path, scale_plugin)
    assert (reloaded.tensors, reloaded.outputs) == (TOTAL, None)
    assert "no forward: inputs given do not run" in reloaded.note
