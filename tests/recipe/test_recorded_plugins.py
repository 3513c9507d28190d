"""Artifacts record what plugins offered for networks and training, with distribution and version, and compare them."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

import surgeon
from surgeon.errors import ArchitectureError, SurgeonWarning, TrainingError
from surgeon.pipeline.training_run import recipe_of_artifact
from surgeon.plugins import load

SOURCE = '''
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers import TrainerCallback

from surgeon import Architecture, ArchitectureProvider, Penalty, Operation, Schedule, Source, Splits, hookimpl


class Lab(ArchitectureProvider):
    scheme = "lab"

    def names(self):
        return ["thin"]

    def build(self, architecture: Architecture) -> nn.Module:
        self.require(architecture.name)
        return LabNet()

    def of_module(self, module):
        return Architecture(scheme="lab", name="thin") if isinstance(module, LabNet) else None


class LabNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("gate", torch.tensor(1.0))

    def forward(self, x):
        return {"logits": self.fc(x) * self.gate}


class Small(Penalty):
    def begin(self, run):
        return lambda outputs, batch: run.model.fc.weight.square().sum()


class Gated(Operation):
    """Train with a gate and small weights."""

    def apply(self, model, surgery):
        surgery.derive(model.fc.bias, [model.fc.bias], lambda bias: bias * 0.5)
        return surgery.model

    def schedules(self):
        return [Schedule(buffer="gate", kind="late")]

    def penalties(self):
        return [Small()]


class Rings(Source):
    source: Literal["rings"] = "rings"

    def load(self, seed):
        rows = [{"x": torch.randn(2), "labels": torch.tensor(i % 2)} for i in range(8)]
        return Splits(rows, rows, inputs=("x",), classes={"labels": 2})


class Count(TrainerCallback):
    pass


@hookimpl
def surgeon_architectures():
    return [Lab()]


@hookimpl
def surgeon_operations():
    return [Gated]


@hookimpl
def surgeon_losses():
    return {"hinge": lambda prediction, target: F.cross_entropy(prediction, target, reduction="none")}


@hookimpl
def surgeon_metrics():
    return {"share": lambda prediction, target: 0.5}


@hookimpl
def surgeon_schedules():
    return {"late": lambda progress: float(progress > 0.5)}


@hookimpl
def surgeon_callbacks():
    return {"count": Count}


@hookimpl
def surgeon_sources():
    return [Rings]
'''
RECIPE = """
model: lab/thin
operations: [{op: gated}]
train:
  data: {source: rings}
  epochs: 1
  batch_size: 8
  objectives: [{output: logits, loss: hinge}, {output: logits, weight: 0}]
  callbacks: [count]
  metrics: [share]
"""
MADE_BY = {
    "loss hinge": "surgeon-lab 1.0",
    "callback count": "surgeon-lab 1.0",
    "schedule late": "surgeon-lab 1.0",
    "source rings": "surgeon-lab 1.0",
    "penalty Small": "surgeon-lab 1.0",
}


def install(site: Path, version: str) -> None:
    (site / "surgeon_lab.py").write_text(SOURCE)
    for old in site.glob("*.dist-info"):
        (old / "METADATA").unlink()
        (old / "entry_points.txt").unlink()
        (old / "top_level.txt").unlink()
        old.rmdir()
    about = site / f"surgeon_lab-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: surgeon-lab\nVersion: {version}\n")
    (about / "entry_points.txt").write_text("[surgeon]\nlab = surgeon_lab\n")
    (about / "top_level.txt").write_text("surgeon_lab\n")


@pytest.fixture
def artifact(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path / "cache"))
    install(site, "1.0")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    surgeon.run_recipe(None, tmp_path / "recipe.yaml", tmp_path / "out", quiet=True)
    yield tmp_path / "out"
    sys.modules.pop("surgeon_lab", None)


def remove(artifact: Path, monkeypatch) -> None:
    for file in (artifact.parent / "site").rglob("entry_points.txt"):
        file.unlink()


def test_parts_of_plugins_are_recorded_with_their_distributions(artifact):
    record = json.loads((artifact / "surgeon.json").read_text())["record"]
    assert record["surgeries"][0]["plugins"] == {
        "operation gated": "surgeon-lab 1.0",
        "source rings": "surgeon-lab 1.0",
        "architecture lab": "surgeon-lab 1.0",
    }
    assert record["training"][0]["plugins"] == {**MADE_BY, "metric share": "surgeon-lab 1.0"}


def test_the_same_version_loads_without_a_warning_and_another_is_named_once(artifact):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surgeon.load(artifact)
    install(artifact.parent / "site", "2.0")
    with pytest.warns(SurgeonWarning) as caught:
        surgeon.load(artifact)
    (message,) = [str(warning.message) for warning in caught]
    assert "of surgeon-lab 1.0" in message
    assert "surgeon-lab 2.0" in message


def test_an_architecture_of_another_version_is_named_where_no_operation_is(tmp_path, artifact):
    first = surgeon.apply("lab/thin", [surgeon.Insert(at="fc")])
    surgeon.save(first, tmp_path / "plain")
    install(artifact.parent / "site", "2.0")
    with pytest.warns(SurgeonWarning, match=r"made with the architecture lab of surgeon-lab 1.0; surgeon-lab 2.0 is"):
        surgeon.load(tmp_path / "plain")


def test_a_missing_provider_is_named_with_the_distribution_to_install(artifact, monkeypatch):
    remove(artifact, monkeypatch)
    with pytest.raises(ArchitectureError) as caught:
        surgeon.load(artifact)
    assert "pip install 'surgeon-lab==1.0'" in str(caught.value)


def test_a_missing_loss_is_named_with_the_distribution_to_install(artifact, monkeypatch):
    plugins = load()
    plugins.losses()
    monkeypatch.setattr(type(plugins), "has", lambda self, kind, name: kind != "loss")
    with pytest.raises(TrainingError, match=r"the loss 'hinge'[\s\S]*pip install 'surgeon-lab==1.0'"):
        recipe_of_artifact(artifact, (), plugins)
