"""Applying and training in one call: what the command does, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file

import surgeon
from surgeon import cli
from surgeon.data.digits import load_data
from surgeon.operations import Freeze, ReplaceHead
from surgeon.recipe.train_settings import Digits

RECIPE = """
seed: 3
operations:
  - {op: replace_head, classes: 3}
  - {op: freeze, up_to: stage4}
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 3, canvas: 8, size: 32, test_fraction: 0.1}
  epochs: 1
  batch_size: 9
"""


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.shufflenet_v2_x0_5(num_classes=5)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_the_network_is_trained_to_the_weights_that_the_command_writes(network, recipe, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net.pt")
    assert cli.run(["apply", str(recipe), str(tmp_path / "net.pt"), "-q", "-o", str(tmp_path / "out")]) == 0
    trained, report = surgeon.finetune(tmp_path / "net.pt", recipe)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(value, written[name]) for name, value in trained.state_dict().items())
    assert report.train_samples == 9
    assert not trained.training


def test_the_record_keeps_the_training_and_survives_saving(network, recipe, tmp_path):
    trained, report = surgeon.finetune(network, recipe)
    again = surgeon.load(surgeon.save(trained, tmp_path / "out"))
    assert surgeon.record_of(again).training[-1]["report"]["after"] == report.after
    assert torch.equal(again.fc.weight, trained.fc.weight)


def test_the_model_handed_in_is_unchanged(network, recipe):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    surgeon.finetune(network, recipe)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.fc.out_features == 5


def test_frozen_parts_stay_and_the_head_moves(network, recipe):
    trained, _ = surgeon.finetune(network, recipe)
    with pytest.warns(surgeon.SurgeonWarning):
        start = surgeon.apply(network, recipe)
    assert torch.equal(trained.conv1[0].weight, start.conv1[0].weight)
    assert not torch.equal(trained.fc.weight, start.fc.weight)


def test_settings_from_python_need_no_recipe(network):
    data = {"source": "digits", "classes": [0, 1], "per_class": 2, "canvas": 8, "size": 32, "test_fraction": 0.05}
    settings = surgeon.TrainSettings(data=data, epochs=1)
    trained, report = surgeon.finetune(network, [ReplaceHead(classes=2), Freeze(all_but="head")], settings=settings)
    assert report.train_samples == 4
    assert trained.fc.out_features == 2


def test_datasets_from_python_take_the_place_of_those_that_settings_name(network):
    splits = load_data(Digits(classes=[0, 1], per_class=2, canvas=8, size=32))
    settings = surgeon.TrainSettings(epochs=1)
    _, report = surgeon.finetune(network, ReplaceHead(classes=2), settings=settings, data=splits)
    assert report.train_samples == 4


def test_without_train_settings_the_error_says_where_they_go(network, tmp_path):
    (tmp_path / "surgery.yaml").write_text("operations: [{op: replace_head, classes: 3}]\n")
    with pytest.raises(surgeon.TrainingError, match="there is no train: section") as caught:
        surgeon.finetune(network, tmp_path / "surgery.yaml")
    assert "settings=surgeon.TrainSettings" in str(caught.value)
    assert "surgery.yaml" in str(caught.value)


def test_mistakes_in_the_train_section_are_reported_before_the_model_is_opened(recipe):
    recipe.write_text(RECIPE + "  objectives: [{output: logits, loss: cross_entrpy}]\n")
    with pytest.raises(surgeon.RecipeError, match="cross_entrpy"):
        surgeon.finetune("nowhere.pt", recipe)


def test_a_complete_run_leaves_nothing_to_resume(network, recipe, tmp_path):
    folder = tmp_path / "checkpoints"
    surgeon.finetune(network, recipe, output_dir=folder, checkpoints=True)
    assert any(folder.glob("checkpoint-*"))
    with pytest.raises(surgeon.TrainingError, match="resume"):
        surgeon.finetune(network, recipe, output_dir=folder, resume=True)
