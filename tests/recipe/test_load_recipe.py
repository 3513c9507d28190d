"""Recipes: what a file says becomes operations and settings, and every key knows where it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt

from surgeon import plugins
from surgeon.errors import RecipeError
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation
from surgeon.operations import Freeze, ReplaceHead, Truncate
from surgeon.plugins import Plugins
from surgeon.recipe.catalog import operations_of
from surgeon.recipe.load import Recipe, load_recipe
from surgeon.recipe.schema import recipe_schema

RECIPE = """\
# yaml-language-server: $schema=./recipe.schema.json
model: torchvision/resnet18
seed: 3
roles: {head: fc}
operations:
  - op: truncate
    after: layer3
  - op: replace_head
    classes: [cat, dog]   # in this order
train:
  epochs: 2
  data: {source: digits, classes: [5, 6]}
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def builtin() -> Plugins:
    return plugins.load(installed=False)


def load(tmp_path: Path, text: str, *overrides: str, name: str = "recipe.yaml", using: Plugins | None = None) -> Recipe:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides=overrides, plugins=using or plugins.load(installed=False))


def test_a_recipe_becomes_operations_and_settings(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE)
    assert recipe.operations == [Truncate(after="layer3"), ReplaceHead(classes=["cat", "dog"])]
    assert (recipe.model, recipe.seed, recipe.roles) == ("torchvision/resnet18", 3, {"head": "fc"})
    assert recipe.train is not None
    assert recipe.train.data is not None
    assert recipe.train.data.classes == [5, 6]


def test_every_key_knows_its_line_and_column(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE)
    path = tmp_path / "recipe.yaml"
    assert recipe.where("seed") == f"{path}:3:1"
    assert recipe.where("operations", 1) == f"{path}:8:5"
    assert recipe.where("operations", 1, "classes") == f"{path}:9:5"
    assert recipe.where("operations", 1, "classes", 1) == f"{path}:9:20"
    assert recipe.where("train", "data", "classes") == f"{path}:12:26"


def test_a_key_that_is_not_written_stands_where_it_would_be(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE)
    assert recipe.where("operations", 0, "keep_blocks") == recipe.where("operations", 0)


def test_the_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    assert load(tmp_path, RECIPE).text == RECIPE


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_may_have_no_end_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="is a device, pipe or socket"):
        load_recipe(tmp_path / "recipe.yaml", plugins=plugins.load(installed=False))


def test_json_is_read_with_tabs_and_places(tmp_path: Path) -> None:
    text = (
        '{\n\t"$schema": "./recipe.schema.json",\n\t"operations": [\n\t\t{"op": "freeze", "up_to": "a\\tb"}\n\t]\n}\n'
    )
    recipe = load(tmp_path, text, name="recipe.json")
    assert recipe.operations == [Freeze(up_to="a\tb")]
    assert recipe.where("operations", 0, "up_to") == f"{tmp_path / 'recipe.json'}:4:20"
    assert recipe.text == text


def test_anchors_and_merges_are_expanded(tmp_path: Path) -> None:
    text = "operations:\n  - &a {op: replace_head, classes: 3, init: zeros}\n  - {<<: *a, classes: 4}\n"
    assert load(tmp_path, text).operations == [
        ReplaceHead(classes=3, init="zeros"),
        ReplaceHead(classes=4, init="zeros"),
    ]


def test_a_model_beside_the_recipe_is_found_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"")
    recipe = load(tmp_path, "model: net.pt\noperations: [{op: truncate, after: a}]")
    assert recipe.model == str(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("operations.1.classes=7", 7),
        ("operations.1.classes=[a, b, c]", ["a", "b", "c"]),
        ("operations.-1.classes=9", 9),
    ],
)
def test_set_overrides_a_value_with_yaml(tmp_path: Path, setting: str, expected: object) -> None:
    operation = load(tmp_path, RECIPE, setting).operations[1]
    assert isinstance(operation, ReplaceHead)
    assert operation.classes == expected


@pytest.mark.parametrize("selector", ["@blocks[3]", "!layer3", "**.conv1", "layer3"])
def test_set_takes_a_selector_without_quotes(tmp_path: Path, selector: str) -> None:
    assert load(tmp_path, RECIPE, f"operations.0.after={selector}").operations[0] == Truncate(after=selector)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("[[2, 3, 64, 64]]", [(2, 3, 64, 64)]),
        ("[2, 3, 64, 64]", [(2, 3, 64, 64)]),
        ("[[2, 8], {shape: [2, 4], dtype: int64, high: 9}]", [(2, 8), (2, 4)]),
        ("{pixel_values: [1, 3, 8, 8]}", [(1, 3, 8, 8)]),
        ("{input_ids: {shape: [2, 8], dtype: int64, high: 100}}", [(2, 8)]),
    ],
)
def test_inputs_are_a_list_of_shapes_or_a_mapping_and_mean_what_they_mean_in_python(
    tmp_path: Path, text: str, shapes: list[tuple[int, ...]]
) -> None:
    from torch import nn

    from surgeon.graph.inputs.resolve import find_inputs

    recipe = load(tmp_path, RECIPE + f"inputs: {text}\n")
    inputs = find_inputs(nn.Identity(), recipe.inputs)
    assert [spec.shape for spec in (*inputs.args, *inputs.kwargs.values())] == shapes
    assert inputs == find_inputs(nn.Identity(), recipe.to_dict()["inputs"])
    if "int64" in text:
        spec = [*inputs.args, *inputs.kwargs.values()][-1]
        assert (str(spec.dtype), spec.high) == ("torch.int64", 9 if inputs.args else 100)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("5", "13:1", "inputs: must be a list or a mapping, not 5"),
        ("[[2, a, 64]]", "13:14", "inputs.0.1: must be a whole number, not 'a'"),
        ("[[2, 0, 64]]", "13:14", "inputs.0.1: must be greater than 0, not 0"),
        ("{x: {dtype: int64}}", "13:10", "inputs.x: needs a shape, or values"),
        ("{x: {values: [[1, 2], [3]]}}", "13:10", "inputs.x: the lists of values differ in their lengths"),
        ("{x: {shape: [2], dtpye: int64}}", "13:26", "nearest: dtype"),
        ("{x: {shape: [2], dtype: flaot32}}", "13:26", "nearest: float32"),
    ],
)
def test_inputs_that_are_no_shapes_are_refused_at_their_place(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, RECIPE + f"inputs: {text}\n")
    assert f"recipe.yaml:{place}: " in str(caught.value)
    assert words in str(caught.value)
    assert len(caught.value.problems) == 1


def test_set_adds_keys_that_the_file_lacks(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE, "operations.1.init=zeros", "train.arguments.weight_decay=0.1", "inputs.shape=[3]")
    assert isinstance(recipe.operations[1], ReplaceHead)
    assert recipe.operations[1].init == "zeros"
    assert recipe.train is not None
    assert recipe.train.arguments == {"weight_decay": 0.1}


def test_an_overridden_place_is_its_setting(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE, "operations.1.classes=[a, b]")
    assert recipe.where("operations", 1, "classes") == "--set operations.1.classes"
    assert recipe.where("operations", 1, "classes", 0) == "--set operations.1.classes"
    assert recipe.where("operations", 0, "after") == f"{tmp_path / 'recipe.yaml'}:7:5"


def test_the_text_of_an_overridden_recipe_is_a_recipe_that_gives_the_same(tmp_path: Path) -> None:
    first = load(tmp_path, RECIPE, "operations.1.classes=7", "seed=11")
    again = load(tmp_path, first.text, name="again.yaml")
    assert again.operations == first.operations
    assert again.seed == 11
    assert "--set operations.1.classes=7" in first.text


def test_the_text_of_a_recipe_from_python_is_a_recipe_that_gives_the_same(tmp_path: Path) -> None:
    recipe = Recipe(operations=[Truncate(keep_blocks=[0, 2]), ReplaceHead(classes=3)], seed=5)
    assert recipe.where("operations", 0) is None
    again = load(tmp_path, recipe.text)
    assert (again.operations, again.seed) == (recipe.operations, 5)


def test_reading_a_recipe_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    code = "import sys, surgeon; surgeon.load_recipe('recipe.yaml'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("name", list(plugins.load(installed=False).operations()))
def test_the_example_of_every_operation_is_a_recipe(tmp_path: Path, builtin: Plugins, name: str) -> None:
    text = operations_of(recipe_schema(builtin))[name]["example"]
    assert load(tmp_path, text).operations[0].name == name


class Inner(BaseModel):
    """A model inside an operation, of which two operations have one each."""

    model_config = ConfigDict(extra="forbid")

    width: PositiveInt


class First(Operation):
    """One."""

    title: Inner

    def apply(self, model: Any, surgery: Any) -> Any:
        return model


class Second(Operation):
    """Two."""

    parts: dict[str, Inner]

    def apply(self, model: Any, surgery: Any) -> Any:
        return model


def test_the_schema_says_what_the_loader_takes(builtin: Plugins) -> None:
    schema = recipe_schema(builtin)
    assert schema["additionalProperties"] is False
    assert {"$schema", "model", "arch", "seed", "roles", "inputs", "must_run", "train", "operations"} == set(
        schema["properties"]
    )
    steps = [
        schema["$defs"][ref["$ref"].rpartition("/")[2]] for ref in schema["properties"]["operations"]["items"]["oneOf"]
    ]
    assert [step["properties"]["op"]["const"] for step in steps] == list(builtin.operations())
    for step in steps:
        assert "op" in step["required"]
        assert step["additionalProperties"] is False
        assert all("description" in field for key, field in step["properties"].items() if key != "op"), step
    references = {ref for ref in json.dumps(schema).split('"') if ref.startswith("#/$defs/")}
    assert {ref.rpartition("/")[2] for ref in references} == set(schema["$defs"])


def test_the_schema_holds_the_operations_of_plugins() -> None:
    class Bundle:
        @hookimpl
        def surgeon_operations(self) -> list[type[Operation]]:
            return [First, Second]

    loaded = Plugins()
    loaded.register(Bundle(), "bundle")
    definitions = recipe_schema(loaded)["$defs"]
    assert "title" in definitions["First"]["properties"]
    assert definitions["Second"]["properties"]["op"] == {"const": "second", "description": "Two."}
    assert definitions["Inner"]["required"] == ["width"]


def test_the_shipped_schema_is_that_of_the_shipped_operations(builtin: Plugins) -> None:
    stored = ROOT / "surgeon" / "recipe.schema.json"
    command = "python -m surgeon.recipe.schema > surgeon/recipe.schema.json"
    assert json.loads(stored.read_text()) == recipe_schema(builtin), f"regenerate it: {command}"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path, plugins=plugins.load([str(ROOT / "recipes" / "digit_sources.py")], installed=False))
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [operation.name for operation in recipe.operations] == [step["op"] for step in written["operations"]]
    assert (recipe.train is not None) == ("train" in written)
