"""One way to look at a network: what a plugin declares, and what a recipe said, count wherever it is traced."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest
from torch import nn

import surgeon
from surgeon.cli import run
from surgeon.interfaces.record import Surgeries
from surgeon.pipeline import api as engine
from surgeon.pipeline.finetune import from_scratch
from surgeon.pipeline.prepare import prepare
from surgeon.plugins import Plugins, load
from surgeon.surgery.inspection import Inspection, inspection_of
from surgeon.training.anatomy import Anatomy

NETWORK = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x).relu()


class Pair(nn.Module):
    \"\"\"Takes an image and a table, of which its first layer says only the one.\"\"\"

    def __init__(self):
        super().__init__()
        self.conv, self.table = nn.Conv2d(3, 8, 3), nn.Linear(4, 8)
        self.first, self.second = Block(), Block()
        self.classify = nn.Linear(8, 5)
        self.project = nn.Linear(5, 5, bias=False)

    def forward(self, image, table):
        x = self.conv(image).mean((2, 3)) + self.table(table)
        x = self.second(self.first(x))
        return self.classify(x)
"""

PLUGIN = """
from surgeon import hookimpl
from surgeon.interfaces.family import Family


@hookimpl
def surgeon_families():
    return [Family("pair", classes=("examined_pair.Pair",), shapes=((3, 16, 16), (4,)))]
"""

REFERENCE = "python:examined_pair:Pair"
TRUST = ["--trust-code", "examined_pair"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "examined_pair.py").write_text(NETWORK)
    (tmp_path / "pair_plugin.py").write_text(PLUGIN)
    (tmp_path / "recipe.yaml").write_text("operations: [{op: freeze, sites: conv}]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def plugin(folder: Path) -> list[str]:
    return ["--plugin", str(folder / "pair_plugin.py")]


@pytest.fixture
def plugins(folder: Path) -> Plugins:
    return load([str(folder / "pair_plugin.py")], installed=False)


def answer(capsys: pytest.CaptureFixture[str], *command: str) -> dict:
    """What a command prints with ``--json``."""
    capsys.readouterr()
    code = run([*command, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def applied(folder: Path, *options: str) -> Path:
    """An artifact of the network with a frozen convolution."""
    out = folder / "out"
    assert run(["apply", str(folder / "recipe.yaml"), REFERENCE, "-o", str(out), "--quiet", *options]) == 0
    return out


def test_without_the_plugin_the_network_cannot_be_traced(folder, capsys):
    report = answer(capsys, "inspect", REFERENCE)
    assert report["outputs"] == {}
    assert any(note.startswith("no shapes") for note in report["notes"])


def test_inspect_shows_the_shapes_of_a_network_that_a_plugin_knows(folder, plugin, capsys):
    report = answer(capsys, "inspect", REFERENCE, *plugin)
    assert report["outputs"] == {"output": [2, 5]}
    assert {site["site"]: site["shape"] for site in report["sites"]}["second"] == [2, 8]
    assert [head["site"] for head in report["roles"]["head"]] == ["classify"]
    assert not any("no shapes" in note for note in report["notes"])


def test_check_reports_the_outputs_of_a_network_that_a_plugin_knows(folder, plugin, plugins, capsys):
    out = applied(folder, *plugin)
    assert answer(capsys, "check", str(out), *plugin, *TRUST)["outputs"] == {"output": [2, 5]}
    assert engine.verify(out, plugins=plugins, trust_code="examined_pair").outputs == {"output": (2, 5)}


def test_the_reload_check_runs_a_network_that_a_plugin_knows(folder, plugin, capsys):
    command = ["apply", str(folder / "recipe.yaml"), REFERENCE, "-o", str(folder / "out")]
    assert answer(capsys, *command, *plugin)["reloaded"]["outputs"] == 1
    assert answer(capsys, *command, "--force")["reloaded"]["outputs"] is None


def test_training_finds_the_head_of_a_network_that_a_plugin_knows(folder, plugin, plugins):
    model = surgeon.load(applied(folder, *plugin), plugins=plugins, trust_code="examined_pair")
    assert [site.name for site in Anatomy(model, plugins).sites(["head"])] == ["classify"]


def test_training_asks_installed_plugins_where_it_is_given_none(folder, plugins, monkeypatch):
    from examined_pair import Pair

    monkeypatch.setattr("surgeon.plugins.load", lambda *args, installed=True: plugins if installed else load())
    assert [site.name for site in Anatomy(Pair(), None).sites(["head"])] == ["classify"]


def test_a_truncated_network_that_a_plugin_knows_is_traced_in_training_too(folder, plugins):
    from examined_pair import Pair

    plan = surgeon.plan(Pair(), [surgeon.Truncate(after="first")], plugins=plugins)
    assert plan.outputs == {"output": (2, 8)}
    assert not any("eval mode only" in note for step in plan.steps for note in step.notes)


SAID = """
inputs: {image: [2, 3, 16, 16], table: [2, 4]}
roles: {head: project, blocks: [first, second], mine: table}
operations: [{op: freeze, sites: conv}]
"""


def test_what_a_recipe_said_of_a_network_counts_for_its_artifact(folder, capsys):
    (folder / "recipe.yaml").write_text(SAID)
    out = applied(folder)
    report = answer(capsys, "inspect", str(out), *TRUST)
    assert report["outputs"] == {"output": [2, 5]}
    assert [head["site"] for head in report["roles"]["head"]] == ["project"]
    assert answer(capsys, "check", str(out), *TRUST)["outputs"] == {"output": [2, 5]}
    model = surgeon.load(out, trust_code="examined_pair")
    assert [site.name for site in Anatomy(model, None).sites(["head", "mine"])] == ["project", "table"]


def test_a_role_whose_site_surgery_has_removed_does_not_stand_in_the_way(folder, capsys):
    said = SAID.replace("head: project", "head: classify").replace("freeze, sites: conv", "truncate, after: first")
    (folder / "recipe.yaml").write_text(said)
    report = answer(capsys, "inspect", str(applied(folder)), *TRUST)
    assert report["outputs"] == {"output": [2, 8]}
    assert report["roles"]["head"] == []


def test_a_role_in_the_part_of_a_network_that_has_the_roles_counts(folder, plugins):
    from examined_pair import Pair

    class Whole(nn.Module):
        def surgeon_composite(self):
            return surgeon.Composite(root="net")

    whole = Whole()
    whole.net = Pair()
    for head in ("project", "net.project"):
        surgeries = [Surgeries(operations=[], roles={"head": head})]
        assert inspection_of(whole, plugins, surgeries).role("head") == ["net.project"]


def test_examining_feeds_the_inputs_of_the_last_recipe(folder, plugins):
    from examined_pair import Pair

    operations = [surgeon.Freeze(sites="conv")]
    model = surgeon.apply(Pair(), operations, inputs={"image": [1, 3, 8, 8], "table": [1, 4]}, plugins=plugins)
    surgeries = surgeon.record_of(model).surgeries
    assert inspection_of(model, plugins, surgeries).trace().outputs == {"output": (1, 5)}
    assert inspection_of(model, plugins, ()).trace().outputs == {"output": (2, 5)}


def test_the_baseline_from_scratch_has_the_roles_of_the_network(folder, plugins):
    (folder / "recipe.yaml").write_text(SAID)
    prepared = prepare(REFERENCE, folder / "recipe.yaml", plugins=plugins)
    baseline = from_scratch(prepared.source, prepared.record, plugins)
    depths, last = Anatomy(baseline, plugins).depths()
    assert (depths["second.linear.weight"], last) == (2, 3)


def test_only_an_inspection_traces_a_network_or_looks_for_its_roles_and_inputs():
    root = Path(surgeon.__file__).parent
    reserved = {"trace", "find_roles", "find_inputs"}
    callers = {
        path
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and reserved & {alias.name for alias in node.names}
    }
    inside = {path for path in callers if path.parent.name == "graph"}
    assert callers - inside == {Path(inspect.getfile(Inspection))}
