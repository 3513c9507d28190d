"""Sources of data from a plugin: in recipes, with domains, in artifacts, and what is said where they are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import surgeon
from surgeon.cli import run
from surgeon.data.combine import load_source
from surgeon.data.sources import Digits
from surgeon.errors import PluginError, RecipeError
from surgeon.interfaces.data import Source
from surgeon.plugins import Plugins, load
from surgeon.recipe.schema import recipe_schema
from surgeon.training.load_splits import load_splits

PLUGIN = '''
from typing import Annotated, Literal

from surgeon import Source, hookimpl
from surgeon.interfaces.selector import BesideRecipe


class Points(Source):
    """Points in the plane, labelled by which side they lie on."""

    source: Literal["points"]
    count: int = 40
    """How many."""
    shift: float = 0.0
    """Where the line is."""
    file: Annotated[str | None, BesideRecipe()] = None

    def load(self, seed):
        import torch
        from surgeon.data.columns import Columns
        from surgeon.interfaces.splits import Splits

        def make(generator):
            x = torch.randn(self.count, 4, generator=generator)
            return Columns(x=x, labels=(x[:, 0] > self.shift).long())

        train, test = (make(torch.Generator().manual_seed(each)) for each in (seed, 10_000))
        return Splits(train, test, inputs=("x",), classes={"labels": 2})


@hookimpl
def surgeon_sources():
    return [Points]
'''

RECIPE = """
operations:
  - op: conserve
    method: ewc
    data: {source: points, count: 8}
    samples: 4
    sites: "0"
  - op: multitask
    tasks: {side: {classes: 2, label: labels}}
    original: keep
train:
  data: {source: points}
  epochs: 1
"""

NETWORK = """
from torch import nn


def network():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "points.py").write_text(PLUGIN)
    return str(tmp_path / "points.py")


@pytest.fixture
def plugins(plugin: str) -> Plugins:
    return load([plugin], installed=False)


def written(folder: Path, data: str, rest: str = "") -> Path:
    (folder / "r.yaml").write_text(f"operations: [{{op: freeze, all_but: head}}]\ntrain:\n  data: {data}\n{rest}")
    return folder / "r.yaml"


def test_a_recipe_names_a_plugins_source_and_its_settings_reach_the_samples(tmp_path: Path, plugins: Plugins) -> None:
    recipe = surgeon.load_recipe(written(tmp_path, "{source: points, count: 7}"), plugins=plugins)
    assert recipe.train is not None
    splits = load_splits(recipe.train, seed=3)
    assert len(splits.train) == 7  # type: ignore[arg-type]
    assert splits.inputs == ("x",)
    assert torch.equal(splits.train[0]["x"], load_splits(recipe.train, seed=3).train[0]["x"])
    assert not torch.equal(splits.train[0]["x"], load_splits(recipe.train, seed=4).train[0]["x"])


def test_several_sources_of_a_plugin_have_domains_and_hide_their_labels(tmp_path: Path, plugins: Plugins) -> None:
    both = "[{source: points, domain: near}, {source: points, shift: 1.0, domain: far, labels: hidden}]"
    recipe = surgeon.load_recipe(
        written(tmp_path, both, "  evaluate: {source: points, shift: 1.0, domain: far}\n"), plugins=plugins
    )
    assert recipe.train is not None
    splits = load_splits(recipe.train)
    assert splits.domains == ("near", "far")
    assert [splits.train[i]["labels"].item() in (0, 1) for i in (0, 40)] == [True, False]
    assert {splits.test[i]["domain"].item() for i in range(40)} == {1}


def test_a_file_that_a_plugins_source_names_is_found_beside_the_recipe(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "points.csv").touch()
    recipe = surgeon.load_recipe(written(tmp_path, "[{source: points, file: points.csv}]"), plugins=plugins)
    assert recipe.sources[0].model_dump()["file"] == str(tmp_path / "points.csv")


@pytest.mark.parametrize(
    ("data", "place", "what", "hint"),
    [
        ("{source: pionts}", "3:10", "train.data.source: unknown source 'pionts'", "nearest: points"),
        ("{source: points, conut: 3}", "3:26", "train.data.conut: unknown key", "nearest: count"),
        ("[{source: digits}, {source: points, count: many}]", "3:45", "must be a whole number, not 'many'", ""),
        (
            "{count: 3}",
            "3:3",
            "train.data: needs the key 'source'",
            "digits, images, masks, coco, table, conll, saved, hub, corpus, points",
        ),
    ],
)
def test_mistakes_in_a_plugins_source_are_reported_like_those_in_a_built_in_one(
    tmp_path: Path, plugins: Plugins, data: str, place: str, what: str, hint: str
) -> None:
    path = written(tmp_path, data)
    with pytest.raises(RecipeError) as caught:
        surgeon.load_recipe(path, plugins=plugins)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}:{place}: ")
    assert what in str(problem)
    assert hint in str(problem)


def test_a_recipe_made_in_python_keeps_the_name_of_its_sources(tmp_path: Path, plugins: Plugins) -> None:
    points = plugins.sources()["points"]
    for source in (Digits(), points(source="points", count=5)):
        recipe = surgeon.Recipe(operations=[surgeon.Freeze(all_but="head")], train=surgeon.TrainSettings(data=source))
        (tmp_path / "made.yaml").write_text(recipe.text)
        read = surgeon.load_recipe(tmp_path / "made.yaml", plugins=plugins)
        assert read.train is not None
        assert read.train.data == source


def test_the_schema_offers_a_plugins_source_wherever_one_may_stand(plugins: Plugins) -> None:
    schema = recipe_schema(plugins)
    choice = schema["$defs"]["AnySource"]["discriminator"]["mapping"]
    assert list(choice) == ["digits", "images", "masks", "coco", "table", "conll", "saved", "hub", "corpus", "points"]
    assert "count" in schema["$defs"][choice["points"].rpartition("/")[2]]["properties"]
    uses = json.dumps(schema).count('"#/$defs/AnySource"')
    assert uses == 5  # data and evaluate, one or several, and conserve
    assert "points" not in json.dumps(recipe_schema(load(installed=False)))


def test_an_artifact_names_the_plugin_that_its_source_came_from(
    tmp_path: Path, plugin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "points_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--arch", "python:points_network:network", "-o", str(tmp_path / "out"), "--quiet"]
    torch.save(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).state_dict(), tmp_path / "net.pt")
    inputs = [str(tmp_path / "r.yaml"), str(tmp_path / "net.pt")]
    assert run(["apply", *inputs, *arguments, "--plugin", plugin]) == 0, capsys.readouterr().err
    surgeries = json.loads((tmp_path / "out" / "surgeon.json").read_text())["record"]["surgeries"][-1]
    assert surgeries["plugins"] == {"source points": plugin}
    assert surgeon.load(tmp_path / "out", plugins=load([plugin]), trust_code="points_network") is not None
    capsys.readouterr()
    for command in ("train", "check"):
        assert run([command, str(tmp_path / "out"), "--trust-code", "points_network"]) != 0
        err = " ".join(capsys.readouterr().err.split())
        assert "unknown source 'points'" in err
        assert f"it comes from the plugin {plugin!r}" in err


def test_plugins_lists_who_offers_sources(tmp_path: Path, plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "--plugin", plugin, "--json"]) == 0
    report = {entry["name"]: entry["hooks"] for entry in json.loads(capsys.readouterr().out)["plugins"]}
    assert report["surgeon.data.sources"] == report[plugin] == ["surgeon_sources"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("source: str", "declares no name"),
        ("source: Literal['a', 'b']", "declares no name"),
        ("source: Literal['a']", "defines no load"),
    ],
)
def test_a_source_that_cannot_be_named_or_loaded_is_refused_with_its_plugin(
    tmp_path: Path, fields: str, reason: str
) -> None:
    text = "from typing import Literal\nfrom surgeon import Source, hookimpl\nclass A(Source):\n"
    text += f"    {fields}\n@hookimpl\ndef surgeon_sources(): return [A]\n"
    (tmp_path / "nameless.py").write_text(text)
    loaded = load([str(tmp_path / "nameless.py")], installed=False)
    assert "a" not in loaded.sources()
    assert "digits" in loaded.sources()
    [(name, error)] = loaded.failures.items()
    assert name.endswith("nameless.py")
    assert reason in error.message
    surgeon.load_recipe(written(tmp_path, "null"), plugins=loaded)  # what needs no source is not hindered


def test_a_name_that_surgeons_own_source_has_stays_ours_and_the_claim_is_listed(tmp_path: Path, plugin: str) -> None:
    Path(plugin).write_text(PLUGIN.replace('"points"', '"digits"'))
    loaded = load([plugin], installed=False)
    assert loaded.sources()["digits"].__module__ == "surgeon.data.sources"
    assert "surgeon.data.sources and" in loaded.conflicts["source digits"].message


def test_a_load_that_returns_no_splits_is_named() -> None:
    class Wrong(Source):
        """No splits."""

        def load(self, seed: int) -> None:  # type: ignore[override]
            """Nothing."""

    with pytest.raises(PluginError, match=r"Wrong\.load\(seed\) of .* returned None; expected Splits"):
        load_source(Wrong())
