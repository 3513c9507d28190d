"""Outputs are recorded when a network is written, and ``check`` notices other ones, though every byte is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build
from torch import nn

import surgeon
from surgeon import plugins
from surgeon.checkpoint.digests import sealed
from surgeon.errors import CheckpointError, VerificationError
from surgeon.pipeline.reference_outputs import compare_outputs, run_before_writing
from surgeon.plugins import Plugins
from surgeon.surgery.inspection import inspection_of

CALLS = {"factor": 2.0}


class Gain(nn.Module):
    """Its outputs depend on code, as a plugin's do: a constructor, a forward, an attribute, a hook."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.width = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight * CALLS["factor"] * self.width


class Scale(surgeon.Operation):
    """Scale the output of a site."""

    at: str = "conv1"

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        """Insert the factor."""
        surgery.insert(surgery.site(self.at), surgery.new(Gain, like=surgery.site(self.at)), name="gain")
        return surgery.model


class Bundle:
    @surgeon.hookimpl
    def surgeon_operations(self) -> list[type[surgeon.Operation]]:
        return [Scale]


@pytest.fixture(scope="module")
def scale_plugin() -> Plugins:
    loaded = plugins.load(installed=False)
    loaded.distributions["bundle"] = ("surgeon-scale", "1.0")
    loaded.register(Bundle(), "bundle")
    return loaded


@pytest.fixture(params=["run_recipe", "save", "save.safetensors", "save.pt"])
def artifact(request: pytest.FixtureRequest, scale_plugin: Plugins, tmp_path: Path) -> Path:
    if request.param == "run_recipe":
        surgeon.run_recipe(build("resnet"), [Scale()], tmp_path / "out", plugins=scale_plugin)
        return tmp_path / "out"
    model = surgeon.apply(build("resnet"), [Scale()], plugins=scale_plugin)
    return surgeon.save(model, tmp_path / request.param.replace("save", "out"))


def _forward(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(CALLS, "factor", 2.1)


def _constructor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gain.__init__, "__defaults__", (4,))


def _library(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.ReLU, "forward", lambda self, x: torch.nn.functional.leaky_relu(x, 0.2))


@pytest.mark.parametrize("change", [_forward, _constructor, _library])
def test_check_notices_other_outputs_of_equal_bytes(
    change: Any, artifact: Path, scale_plugin: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = surgeon.check(artifact, plugins=scale_plugin)
    assert (verified.same_outputs, verified.outputs_note) == (1, "")
    change(monkeypatch)
    pattern = r"gives other outputs than then: output by [\d.]+ %, where 0\.5 % is rounding\n.*surgeon-scale 1\.0"
    with pytest.raises(VerificationError, match=pattern):
        surgeon.check(artifact, plugins=scale_plugin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rounding_on_another_machine_is_not_a_difference(
    dtype: torch.dtype, scale_plugin: Plugins, tmp_path: Path
) -> None:
    model = surgeon.apply(build("resnet").to(dtype), [Scale()], plugins=scale_plugin)
    reference = run_before_writing(model, inspection_of(model, scale_plugin, []))
    recorded = reference.recorded()
    assert recorded is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1 + torch.finfo(dtype).eps * torch.randn(parameter.shape).sign().to(dtype)
    compared = compare_outputs(model, json.loads(json.dumps(recorded)), "here")
    assert (compared.equal, dict(compared.different), compared.note) == (1, {}, "")


class Threshold(nn.Module):
    """Amplifies the last bit of its input: a detector's threshold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x * 2**22).frac() > 0.5).to(x.dtype) * 10


def test_a_network_that_amplifies_rounding_is_not_compared(scale_plugin: Plugins) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Threshold()).eval()
    recorded = run_before_writing(model, inspection_of(model, scale_plugin, [])).recorded()
    assert recorded is not None
    with torch.no_grad():
        model[0].weight *= 1 + 1e-6
    compared = compare_outputs(model, recorded, "here")
    assert compared.note == "the outputs change with the last bits of the weights"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("xlnet",)][:40])
def test_inputs_of_every_kind_are_recorded_and_made_again(name: str, scale_plugin: Plugins) -> None:
    model = build(name)
    inspection = inspection_of(model, scale_plugin, [])
    reference = run_before_writing(model, inspection)
    if reference.inputs is None:
        pytest.skip(reference.refusal)
    recorded = json.loads(json.dumps(reference.recorded()))
    assert recorded is not None
    compared = compare_outputs(model, recorded, "here")
    assert not compared.different
    assert compared.equal == len(recorded["tensors"]) > 0


def test_the_same_surgery_gives_the_same_bytes(scale_plugin: Plugins, tmp_path: Path) -> None:
    for name in ("one", "two"):
        surgeon.run_recipe(build("resnet"), [Scale()], tmp_path / name, plugins=scale_plugin)
    assert (tmp_path / "one" / "surgeon.json").read_bytes() == (tmp_path / "two" / "surgeon.json").read_bytes()


def edited(artifact: Path, **changes: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((artifact / "surgeon.json").read_text())
    manifest.pop("outputs")
    (artifact / "surgeon.json").write_text(json.dumps(sealed(manifest | changes)))
    return manifest


def test_an_artifact_without_recorded_outputs_says_so(scale_plugin: Plugins, tmp_path: Path) -> None:
    path = surgeon.save(surgeon.apply(build("resnet"), [Scale()], plugins=scale_plugin), tmp_path / "out")
    edited(path, format=2)
    verified = surgeon.check(path, plugins=scale_plugin)
    assert (verified.same_outputs, verified.outputs_note) == (0, "not recorded when it was written")


DAMAGED: list[Any] = [
    [],
    "text",
    {},
    {"inputs": {}, "tensors": {}, "tolerance": 1},
    {"inputs": {"args": {"tuple": 3}, "kwargs": {"dict": {}}, "settings": {"dict": {}}}, "tensors": {}},
    {"inputs": {"args": {"tensor": [1], "dtype": "nn"}, "kwargs": 1, "settings": None, "digest": ""}, "tensors": {}},
]


@pytest.mark.parametrize("outputs", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_outputs_are_named(outputs: Any, scale_plugin: Plugins, tmp_path: Path) -> None:
    path = surgeon.save(surgeon.apply(build("resnet"), [Scale()], plugins=scale_plugin), tmp_path / "out")
    edited(path, outputs=outputs)
    with pytest.raises(CheckpointError, match="its manifest is damaged: outputs"):
        surgeon.check(path, plugins=scale_plugin)


def test_the_model_that_is_saved_stays_as_it_is(scale_plugin: Plugins, tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.layer(x) * self.calls

    model = Counting().train()
    path = surgeon.save(model, tmp_path / "out")
    assert model.calls.item() == 0
    assert model.training
    assert surgeon.load(path, arch=Counting).calls.item() == 0  # type: ignore[operator]
