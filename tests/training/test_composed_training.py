"""Recipes whose result has outputs of its own names, from the file through training to the artifact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import surgeon
from surgeon.cli import app as cli

TRAIN = """
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 4, canvas: 8, size: 32, test_fraction: 0.1}
  batch_size: 6
  arguments: {max_steps: 2}
"""
DROPPED = """
operations:
  - {op: multitask, original: drop, tasks: {digit: {classes: 3, label: labels}}}
"""
KEPT = """
operations:
  - {op: multitask, tasks: {digit: {classes: 3, label: labels}}}
"""
COLUMN = """
operations:
  - {op: progressive, first_task: logits, task: three, classes: 3, at: [stage4]}
"""
UNSAID = COLUMN.replace("three,", "three, loss: null,")
BRANCHED = """
operations:
  - {op: gradient_reversal, schedule: linear}
  - {op: progressive, task: three, classes: 3, at: [stage4]}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=3).state_dict(), path)
    return path


def applied(
    recipe: str, checkpoint: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any], dict[str, torch.Tensor]]:
    """Exit code, what was printed as JSON, and the tensors of the artifact."""
    (folder / "recipe.yaml").write_text(recipe + TRAIN)
    code = cli.run(["apply", str(folder / "recipe.yaml"), str(checkpoint), "-o", str(folder / "out"), "--json"])
    report = json.loads(capfd.readouterr().out)
    return code, report, surgeon.load(folder / "out").state_dict() if code == 0 else {}


@pytest.mark.parametrize(
    ("recipe", "measured", "trained"),
    [
        (DROPPED, {"digit_loss", "digit_accuracy"}, "grafts.digit."),
        (
            KEPT,
            {"logits_loss", "logits_accuracy", "digit_loss", "digit_accuracy"},
            "grafts.digit.",
        ),
        (COLUMN, {"three_loss", "three_accuracy"}, "columns.1."),
        (UNSAID, {"three_loss", "three_accuracy"}, "columns.1."),
    ],
    ids=["one task alone", "a task beside the original", "a column", "a column without a loss"],
)
def test_a_recipe_trains_its_new_outputs_under_their_names(checkpoint, tmp_path, capfd, recipe, measured, trained):
    code, report, state = applied(recipe, checkpoint, tmp_path, capfd)
    assert code == 0
    assert set(report["training"]["after"]) == measured
    assert report["reloaded"]["outputs"] == len(report["plan"]["outputs"])
    (tmp_path / "untrained").mkdir()
    with pytest.warns(surgeon.SurgeonWarning, match="ignored"):
        fresh = surgeon.apply(checkpoint, tmp_path / "recipe.yaml").state_dict()
    moved = {name for name, value in state.items() if not torch.equal(value, fresh[name])}
    assert any(name.startswith(trained) for name in moved)
    assert not any(name.startswith("columns.0.") for name in moved)


def test_what_is_asked_of_a_network_that_a_column_freezes_is_dropped(checkpoint, tmp_path, capfd):
    recipe = BRANCHED.split("  - {op: multitask")[0]
    code, report, _ = applied(recipe, checkpoint, tmp_path, capfd)
    assert (code, set(report["training"]["after"])) == (0, {"three_loss", "three_accuracy"})


def test_an_output_of_an_earlier_column_cannot_be_an_objective(checkpoint, tmp_path, capfd):
    recipe = COLUMN + TRAIN + "  objectives: [{output: logits}]\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    code = cli.run(["apply", str(tmp_path / "recipe.yaml"), str(checkpoint), "-o", str(tmp_path / "out")])
    assert code == 9
    assert "no gradient reaches the output 'logits'" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_checkpoints_lie_beside_the_output_and_are_replaced_only_by_force(checkpoint, tmp_path, capfd):
    recipe = (DROPPED + TRAIN).replace("max_steps: 2", "max_steps: 2, save_strategy: steps, save_steps: 1")
    (tmp_path / "recipe.yaml").write_text(recipe)
    run = ["apply", str(tmp_path / "recipe.yaml"), str(checkpoint), "-q", "-o", str(tmp_path / "out")]
    assert cli.run(run) == 0
    folder = tmp_path / "out.checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    assert cli.run([*run[:-1], str(tmp_path / "out"), "--force", "--set", "train.arguments.max_steps=1"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1"]
    shutil.rmtree(tmp_path / "out")
    assert cli.run(run) == 8
    assert "out.checkpoints exists" in capfd.readouterr().err
