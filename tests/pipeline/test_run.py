"""Running a recipe from a model to a checked artifact: what ``surgeon apply`` and ``surgeon train`` do."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torchvision

import surgeon
from surgeon import cli

SURGERY = "operations: [{op: replace_head, classes: 3}, {op: freeze, up_to: stage4}]\n"
TRAIN = """
seed: 3
train:
  data: {source: digits, classes: [0, 1, 2], per_class: 3, canvas: 8, size: 32, test_fraction: 0.1}
  epochs: 1
  batch_size: 9
"""


class Log(surgeon.RunProgress):
    """Writes down what a run calls."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.bytes = 0
        self.plan: surgeon.Plan | None = None

    @contextmanager
    def step(self, what, total=None):
        self.steps.append(what)

        def count(done: int) -> None:
            self.bytes += done

        yield count

    def planned(self, plan):
        self.plan = plan


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict(), path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(SURGERY + TRAIN)
    return tmp_path / "recipe.yaml"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def printed(capsys: pytest.CaptureFixture[str], *command: str) -> dict:
    capsys.readouterr()
    assert cli.run([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_recipe_without_training_gives_the_files_and_the_report_of_the_command(checkpoint, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(SURGERY)
    command = printed(capsys, "apply", str(tmp_path / "recipe.yaml"), str(checkpoint), "-o", str(tmp_path / "a"))
    report = surgeon.run_recipe(checkpoint, tmp_path / "recipe.yaml", tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")
    assert json.loads(json.dumps(report.to_dict())) == {**command, "output": str(tmp_path / "b")}
    assert report.training is None
    assert report.reload.tensors == report.reload.total


def test_a_recipe_with_training_trains_and_draws_the_curve(checkpoint, recipe, tmp_path):
    report = surgeon.run_recipe(checkpoint, recipe, tmp_path / "out")
    assert report.training.train_samples == 9
    assert "<svg" in (tmp_path / "out.svg").read_text()
    assert surgeon.record_of(surgeon.load(tmp_path / "out")).training


def test_train_false_leaves_the_training_aside(checkpoint, recipe, tmp_path):
    report = surgeon.run_recipe(checkpoint, recipe, tmp_path / "out", train=False)
    assert report.training is None
    assert not surgeon.record_of(surgeon.load(tmp_path / "out")).training


def test_what_exists_at_the_output_is_refused_before_the_model_is_opened(recipe, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "surgeon.json").write_text("{}")
    with pytest.raises(surgeon.OutputError, match="exists"):
        surgeon.run_recipe("nowhere.pt", recipe, tmp_path / "out", train=False)


def test_the_steps_of_a_run_and_its_plan_are_reported_on_the_way(checkpoint, recipe, tmp_path):
    log = Log()
    report = surgeon.run_recipe(checkpoint, recipe, tmp_path / "out", train=False, progress=log)
    assert log.steps == ["reading the model and planning", "writing", "reloading"]
    assert log.bytes == report.plan.bytes_written
    assert log.plan is report.plan


def test_an_artifact_is_trained_by_its_own_recipe_as_the_command_does(checkpoint, recipe, tmp_path, capsys):
    surgeon.run_recipe(checkpoint, recipe, tmp_path / "cut", train=False)
    printed(capsys, "train", str(tmp_path / "cut"), "-o", str(tmp_path / "a"))
    report = surgeon.run_training(tmp_path / "cut", None, tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert report.plan is None
    assert "plan" not in report.to_dict()


def test_overrides_change_the_artifacts_recipe(checkpoint, recipe, tmp_path):
    surgeon.run_recipe(checkpoint, recipe, tmp_path / "cut.pt", train=False)
    overrides = ["train.data.per_class=2"]
    report = surgeon.run_training(tmp_path / "cut.pt", None, tmp_path / "out.pt", overrides=overrides)
    assert report.training.train_samples == 6
    with pytest.raises(surgeon.RecipeError, match="artifact's own recipe"):
        surgeon.run_training(tmp_path / "cut.pt", recipe, tmp_path / "more.pt", overrides=overrides)


def test_operations_that_the_artifact_has_been_through_are_not_applied_twice(checkpoint, recipe, tmp_path):
    surgeon.run_recipe(checkpoint, recipe, tmp_path / "cut", train=False)
    surgeon.run_training(tmp_path / "cut", recipe, tmp_path / "out")
    assert len(surgeon.record_of(surgeon.load(tmp_path / "out")).surgeries) == 1


def test_a_checkpoint_without_a_recipe_is_refused_with_what_to_give(checkpoint, tmp_path):
    with pytest.raises(surgeon.OutputError, match="is not an artifact of surgeon") as caught:
        surgeon.run_training(checkpoint, None, tmp_path / "out")
    assert "surgeon train RECIPE MODEL" in str(caught.value)


def test_a_recipe_without_a_train_section_is_refused(checkpoint, tmp_path):
    (tmp_path / "recipe.yaml").write_text(SURGERY)
    with pytest.raises(surgeon.RecipeError, match="the recipe has no train: section"):
        surgeon.run_training(checkpoint, tmp_path / "recipe.yaml", tmp_path / "out")


def test_a_second_model_beside_an_artifact_is_refused_by_the_command(checkpoint, recipe, tmp_path, capsys):
    surgeon.run_recipe(checkpoint, recipe, tmp_path / "cut", train=False)
    assert cli.run(["train", str(tmp_path / "cut"), str(checkpoint), "-o", str(tmp_path / "out")]) == 8
    assert "a second model" in capsys.readouterr().err
