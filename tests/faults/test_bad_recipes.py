"""Recipes that are wrong: every mistake at once, each with its place, in plain words, with the nearest name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surgeon import plugins
from surgeon.errors import RecipeError
from surgeon.plugins import Plugins
from surgeon.recipe.load import load_recipe


@pytest.fixture(scope="module")
def builtin() -> Plugins:
    return plugins.load(installed=False)


@pytest.fixture
def refused(tmp_path: Path, builtin: Plugins) -> Callable[..., str]:
    """The error that a recipe's text gives, its folder left out."""

    def run(text: str | bytes, *overrides: str, name: str = "r.yaml") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, overrides=overrides, plugins=builtin)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return run


def step(text: str) -> str:
    return f"operations:\n  - {text}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "r.yaml: is empty"),
        ("# nothing\n", "r.yaml: is empty"),
        ("- op: freeze\n", "r.yaml:1:1: is a list of 1, not a mapping"),
        ("freeze\n", "r.yaml:1:1: is 'freeze', not a mapping"),
        ("operations: []\n", "r.yaml:1:1: operations: is empty"),
        ("seed: 1\n", "r.yaml:1:1: needs the key 'operations'"),
        ("operations: 3\n", "r.yaml:1:1: operations: must be a list, not 3"),
        ("operations:\n", "r.yaml:1:1: operations: must be a list, not empty"),
        (step("freeze"), "r.yaml:2:5: operations.0: must be a mapping with the key 'op', not 'freeze'"),
        (step("after: layer3"), "r.yaml:2:5: operations.0: needs the key 'op'"),
        (step("freeze: {up_to: layer3}"), "the operation's name\n    write 'op: freeze', with its fields beside it"),
        (step("op: 3"), "r.yaml:2:5: operations.0: op must be text, not 3"),
        (step("op: freez"), "r.yaml:2:5: operations.0.op: unknown operation 'freez'\n    nearest: freeze"),
        (step("{op: replace_head, clases: 3}"), "operations.0.clases: unknown key\n    nearest: classes"),
        (step("{op: replace_head, classes: '7'}"), "operations.0.classes: must be a whole number or a list, not '7'"),
        (step("{op: replace_head, classes: true}"), "must be a whole number or a list, not true"),
        (step("{op: replace_head, classes: [a, 1]}"), "operations.0.classes.1: must be text, not 1"),
        (
            step("{op: replace_head, init: zero}"),
            "operations.0.init: must be 'default', 'zeros' or 'rows', not 'zero'\n    nearest: zeros",
        ),
        (step("{op: truncate, after: [a]}"), "operations.0.after: must be text, not a list of 1"),
        (step("{op: multitask}"), "r.yaml:2:5: operations.0: needs the key 'tasks'\n    see: surgeon ops multitask"),
        (
            step("{op: multitask, tasks: {a: {clases: 3}}}"),
            "operations.0.tasks.a.clases: unknown key\n    nearest: classes",
        ),
        ("sed: 1\n" + step("{op: truncate, after: a}"), "r.yaml:1:1: sed: unknown key\n    nearest: seed"),
        ("seed: -1\n" + step("{op: truncate, after: a}"), "r.yaml:1:1: seed: must be at least 0, not -1"),
        (
            "train: {epochs: 0}\n" + step("{op: truncate, after: a}"),
            "r.yaml:1:9: train.epochs: must be greater than 0, not 0",
        ),
        ("train: {ephocs: 1}\n" + step("{op: truncate, after: a}"), "train.ephocs: unknown key\n    nearest: epochs"),
        (
            "seed: 1\nseed: 2\n" + step("{op: truncate, after: a}"),
            "r.yaml:2:1: seed: is a duplicate key; first at r.yaml:1:1",
        ),
        (step("{op: truncate, after: a, after: b}"), "operations.0.after: is a duplicate key"),
        (step("{op: truncate, after: !!python/object/apply:os.system [ls]}"), "the tag 'tag:yaml.org,2002:python/"),
        (step("{op: truncate, after: !run ls}"), "the tag '!run' is not allowed"),
        ("{[1]: 2}\n", "a list or mapping cannot be a key"),
        ("operations: [\n", "r.yaml:2:1: is not YAML"),
        ("a: b: c\n", "r.yaml:1:5: is not YAML: mapping values are not allowed here"),
        ("\toperations: 1\n", "r.yaml:1:1: is not YAML"),
        ("a: *b\n", "is not YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "is not YAML: but found another document"),
        ("a: \x00\n", "is not YAML"),
        (b"\xff\xfe\x00o", "r.yaml: is not UTF-8 text"),
        (b"PK\x03\x04\x80\x81", "r.yaml: is not UTF-8 text"),
        ("[" * 100_000, "is nested too deeply"),
        ("- " * 100_000, "is nested too deeply"),
        ("a: &a [*a]\n", "its aliases multiply"),
        ("x" * 2_000_000, "too large for a recipe\n    the order is: surgeon apply RECIPE MODEL"),
    ],
)
def test_a_mistake_is_reported_with_its_place(refused: Callable[..., str], text: str | bytes, expected: str) -> None:
    message = refused(text)
    assert expected in message
    assert "pydantic" not in message
    assert "Traceback" not in message


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(refused: Callable[..., str]) -> None:
    text = "modell: x\nseed: no\noperations:\n  - op: freez\n  - op: replace_head\n    classes: many\n    knd: x\n"
    places = [line.split(": ")[0] for line in refused(text).splitlines() if line.startswith("r.yaml")]
    assert places == ["r.yaml:1:1", "r.yaml:2:1", "r.yaml:4:5", "r.yaml:6:5", "r.yaml:7:5"]


def test_aliases_that_explode_are_refused_before_they_fill_memory(refused: Callable[..., str]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "its aliases multiply" in refused("\n".join(lines))


def test_a_file_that_is_not_there_names_the_nearest_one(tmp_path: Path, builtin: Plugins) -> None:
    (tmp_path / "quickstart.yaml").write_text("")
    with pytest.raises(RecipeError, match=r"no such file\n    nearest: .*quickstart\.yaml"):
        load_recipe(tmp_path / "quikstart.yaml", plugins=builtin)


def test_a_folder_is_not_a_recipe(tmp_path: Path, builtin: Plugins) -> None:
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        load_recipe(tmp_path, plugins=builtin)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("operations.3.after=x", "--set operations.3.after: operations has no item '3'\n    its items are 0"),
        ("operations.first.after=x", "operations has no item 'first'"),
        (
            "operations.0.after.deep=x",
            "--set operations.0.after.deep: operations.0.after is 'layer3', which has no keys",
        ),
        ("operations.0.aftr=x", "--set operations.0.aftr: unknown key\n    nearest: after"),
        ("operation.0.after=x", "--set operation.0.after: operation: unknown key\n    nearest: operations"),
        ("sed=1", "--set sed: unknown key\n    nearest: seed"),
        ("seed=[", "--set seed:1:2: is not YAML"),
        ("seed=!!python/name:os.system x", "--set seed: the tag"),
        ("seed", "--set seed: is not PATH=VALUE"),
        ("=3", "--set =3: is not PATH=VALUE"),
        ("operations..after=3", "is not PATH=VALUE"),
    ],
)
def test_an_override_that_fits_nothing_is_reported(refused: Callable[..., str], setting: str, expected: str) -> None:
    assert expected in refused(step("{op: truncate, after: layer3}"), setting)


def test_no_code_in_a_recipe_is_executed(refused: Callable[..., str], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    refused(f"operations: !!python/object/apply:pathlib.Path.touch [{marker}]\n")
    refused(f"operations: !!python/object/new:os.system ['touch {marker}']\n")
    assert not marker.exists()


def test_a_wrong_operation_of_a_broken_plugin_names_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "dim-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dim\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[surgeon]\ndim = dim_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "r.yaml"
    path.write_text(step("op: dim"))
    with pytest.raises(RecipeError, match=r"unknown operation 'dim'[\s\S]*'dim', which failed: .*dim_is_not_there"):
        load_recipe(path)
