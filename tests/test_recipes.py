"""Every recipe in ``recipes/`` runs by the commands that its header gives, here for a step instead of many epochs."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from pages.browser import CHROMIUM, run_in_page
from ruamel.yaml import YAML

import surgeon
from surgeon.cli import app as cli

RECIPES = Path(__file__).parents[1] / "recipes"
NAMES = sorted(path.name for path in RECIPES.glob("*.yaml"))
SHORT = "train.epochs=0.001"
"""One step: epochs are rounded up to a step."""
ELSEWHERE = {"quickstart.yaml"}
"""Run as it stands by tests/test_quickstart.py."""


def commands(name: str) -> list[list[str]]:
    """The arguments of the ``surgeon`` commands in a recipe's header."""
    header = [line.removeprefix("#").strip() for line in (RECIPES / name).read_text().splitlines() if line[:1] == "#"]
    lines = [line.removeprefix("PYTHONPATH=recipes ") for line in header]
    return [shlex.split(line)[1:] for line in lines if line.startswith("surgeon apply ")]


def trains(name: str) -> bool:
    return "train" in YAML(typ="safe").load((RECIPES / name).read_text())


class Workshop:
    """A folder like the repository's root, with what recipes have made so far under ``out/``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "recipes").symlink_to(RECIPES)

    def make(self, name: str, *settings: str) -> Path:
        """What the last command in a recipe's header makes, after those that it says come first."""
        last = self.make_earlier(name)
        return self._run([*last, *(item for setting in settings for item in ("--set", setting))])

    def make_earlier(self, name: str) -> list[str]:
        """Run the commands in a recipe's header that come before the last one, and return that."""
        *before, last = commands(name)
        for command in before:
            if not (self.root / _output(command)).exists():
                self._run(command)
        return last

    def make_source(self, recipe: str, command: list[str]) -> None:
        """Make the model that a command in a recipe's header operates on."""
        given = YAML(typ="safe").load((RECIPES / recipe).read_text()).get("model", "")
        model = next((part for part in (*command[2:3], given) if part.startswith("out/")), "")
        if model and not (self.root / model).exists():
            self._run(next(part for name in NAMES for part in commands(name) if _output(part) == model))

    def _run(self, command: list[str]) -> Path:
        recipe, output = Path(command[1]).name, self.root / _output(command)
        self.make_source(recipe, command)
        assert cli.run([*command, "--force", *(("--set", SHORT) if trains(recipe) else ()), "--quiet"]) == 0, command
        return output


def _output(command: list[str]) -> str:
    return command[command.index("-o") + 1] if "-o" in command else f"out/{Path(command[1]).stem}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def made(root: Path) -> Workshop:
    return Workshop(root)


@pytest.fixture
def workshop(made: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.syspath_prepend(str(RECIPES))
    monkeypatch.chdir(made.root)
    return made


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return surgeon.load(path, trust_code="networks").state_dict()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ELSEWHERE])
def test_a_recipe_runs_by_the_commands_in_its_header(name: str, workshop: Workshop) -> None:
    made = workshop.make(name)
    record = surgeon.record_of(surgeon.load(made, trust_code="networks"))
    assert record is not None
    assert bool(record.training) >= trains(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_of_the_recipes_lists_each(name: str) -> None:
    assert f"`{name}`" in (RECIPES / "README.md").read_text()


def test_the_first_column_is_the_source_to_the_byte_after_training(workshop: Workshop) -> None:
    after = tensors(workshop.make("progressive.yaml"))
    before = tensors(workshop.root / "out/source")
    assert all(torch.equal(after[f"columns.0.{name}"], value) for name, value in before.items())
    assert not torch.equal(after["columns.1.blocks.0.0.weight"], before["blocks.0.0.weight"])


def test_feature_extraction_moves_nothing_but_the_head(workshop: Workshop) -> None:
    after = tensors(workshop.make("feature_extraction.yaml"))
    before = tensors(workshop.root / "out/source")
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("frozen", [True, False])
def test_copied_layers_are_the_donors_only_where_they_are_frozen(frozen: bool, workshop: Workshop) -> None:
    after = tensors(workshop.make("layer_transfer.yaml", f"operations.0.frozen={str(frozen).lower()}"))
    donor = tensors(workshop.root / "out/convnet")
    floats = [name for name, value in donor.items() if value.is_floating_point()]  # not the norms' counters
    same = {name for name in floats if torch.equal(after[name], donor[name])}
    assert same == ({name for name in floats if name.startswith(("blocks.0", "blocks.1"))} if frozen else set())


OLD = "{source: digits, classes: [0, 1, 2, 3, 4], size: 16, channels: 1}"


@pytest.mark.parametrize(
    "setting",
    [
        "operations.1={op: conserve, method: l2_sp, weight: 0.01}",
        f"operations.1={{op: conserve, method: ewc, weight: 5, samples: 8, data: {OLD}}}",
        "operations.1.weight=0.2",
    ],
    ids=["l2_sp", "ewc", "lwf"],
)
def test_conservation_measures_the_old_task_and_never_trains_on_it(setting: str, workshop: Workshop) -> None:
    record = surgeon.record_of(surgeon.load(workshop.make("conservation.yaml", setting), trust_code="networks"))
    report = record.training[-1]["report"]
    assert {name: measured["all"]["samples"] for name, measured in report["tasks"].items()} == {
        "logits": 360,
        "new": 359,
    }
    assert report["train_samples"] == 537  # of 5 to 9 alone


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_its_plan_opens(name: str, workshop: Workshop) -> None:
    command = workshop.make_earlier(name)
    if "-o" in command:
        at = command.index("-o")
        command = [*command[:at], *command[at + 2 :]]
    page = workshop.root / f"{name}.html"
    workshop.make_source(name, command)
    assert cli.run(["plan", *command[1:], "--html", str(page), "-q"]) == 0
    said = run_in_page(
        page,
        """
        const edges = pane.querySelectorAll("path.edge").length;
        choose("before");
        await settled(Number(document.body.dataset.ready) + 1);
        return edges;
        """,
    )
    assert said["faults"] == []
    assert said["value"] > 5
