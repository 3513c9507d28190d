"""Parts of recipes, described for the terminal: sections, sources, the list of sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon import plugins
from surgeon.cli import run
from surgeon.errors import RecipeError
from surgeon.plugins import Plugins
from surgeon.recipe.catalog import schema_of
from surgeon.recipe.load import load_recipe
from surgeon.recipe.recipe_parts import describe_part, names_offered, sources_of


@pytest.fixture(scope="module")
def builtin() -> Plugins:
    return plugins.load(installed=False)


def keys(part: dict[str, object] | None) -> list[str]:
    assert part is not None
    return [field["name"] for field in part["fields"]]  # type: ignore[attr-defined]


def test_every_key_of_train_is_described(builtin: Plugins) -> None:
    schema = schema_of(builtin)
    train = describe_part(schema, "train")
    assert {"data", "epochs", "optimizer", "distill"} <= set(keys(train))
    for key in keys(train):
        part = describe_part(schema, f"train.{key}")
        assert part is None or part["fields"], key
    assert describe_part(schema, "optimizer") == describe_part(schema, "train.optimizer")
    assert "layer_decay" in keys(describe_part(schema, "train.optimizer"))


def test_every_source_is_listed_and_described_with_what_it_requires_first(builtin: Plugins) -> None:
    schema = schema_of(builtin)
    listed = sources_of(schema)
    assert list(listed) == list(builtin.sources())
    assert all(line.endswith(".") and "\n" not in line for line in listed.values())
    assert describe_part(schema, "train.data") is describe_part(schema, "sources") is None
    for name in listed:
        part = describe_part(schema, name)
        assert part is not None
        assert part["example"].startswith("train:\n  data: {source: " + name)
        required = [field["required"] for field in part["fields"]]
        assert required == sorted(required, reverse=True), name
    assert "mean" in [field["name"] for field in describe_part(schema, "images")["types"]["Pixels"]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train.optimiser", "nearest: train.optimizer"),
        ("tabel", "nearest: table"),
        ("loses", "nearest: losses"),
        ("train.data.path", "one of: digits, images"),
        ("truncate", "see: surgeon ops truncate"),
    ],
)
def test_an_unknown_part_is_refused_with_what_there_is(name: str, hint: str, builtin: Plugins) -> None:
    with pytest.raises(RecipeError) as refused:
        describe_part(schema_of(builtin), name)
    assert hint in str(refused.value.hint)


@pytest.mark.parametrize("given", ["0", "1.5", "true"])
def test_what_yaml_does_not_take_for_text_is_to_be_quoted(given: str, builtin: Plugins, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"operations: [{{op: replace_head, classes: [{given}, a]}}]\n")
    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe, plugins=builtin)
    assert f'put it in quotes: "{given}"' in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "command"),
    [
        ("train.epoch=1", "surgeon schema train"),
        ("train.optimizer.layer_dcay=1", "surgeon schema train.optimizer"),
        ("train.data.pth=x", "surgeon schema table"),
        ("train.data.source=tabel", "surgeon schema sources"),
    ],
)
def test_a_mistake_in_train_names_the_command_that_explains_the_part(
    setting: str, command: str, builtin: Plugins, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operations: [{op: freeze, up_to: conv1}]\ntrain:\n  data: {source: table, path: a.csv}\n")
    with pytest.raises(RecipeError) as refused:
        load_recipe(recipe, overrides=[setting], plugins=builtin)
    assert str(refused.value).rstrip().endswith(f"see: {command}")


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        ("losses", "huber", "Huber 1964"),
        ("train.objectives", "cross_entropy", "classes"),
        ("metrics", "calibration_error", "calibration"),
        ("train.callbacks", "early_stopping", "End training"),
        ("schedules", "dann", "Ganin"),
    ],
)
def test_what_a_part_may_name_is_listed_with_a_line_on_each(
    part: str, name: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["schema", part, "--json"]) == 0
    assert words in json.loads(capfd.readouterr().out)["names"][name]
    assert run(["schema", part]) == 0
    assert name in capfd.readouterr().out


def test_a_part_that_names_nothing_of_plugins_has_no_such_list(builtin: Plugins) -> None:
    assert names_offered(builtin, "train.optimizer") == {}
