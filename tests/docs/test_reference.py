"""The generated reference: what it must hold, and that it builds without a warning and with no broken link."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from torch import nn

import surgeon
from surgeon.docs.command_pages import error_classes
from surgeon.docs.gallery_page import RECIPES
from surgeon.docs.links import broken_links
from surgeon.docs.pages import generated_pages
from surgeon.docs.rst import docstring, escape
from surgeon.docs.training_pages import penalties
from surgeon.docs.website import build
from surgeon.pipeline.manifest import KEYS
from surgeon.plugins import load


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return generated_pages()


def test_every_operation_has_a_page_with_every_key(pages: dict[str, str]) -> None:
    for name, kind in load(installed=False).operations().items():
        page = pages[f"reference/operations/{name}.rst"]
        missing = [field for field in kind.model_fields if f".. confval:: {name}.{field}\n" not in page]
        assert missing == [], name
        assert f"``surgeon.{kind.__name__}``" in page
        assert f"\n   {name}\n" in pages["reference/operations/index.rst"]


def test_every_source_every_setting_and_every_part_is_described(pages: dict[str, str]) -> None:
    for name, kind in load(installed=False).sources().items():
        fields = [field for field in kind.model_fields if field not in ("source", *surgeon.Source.model_fields)]
        assert [f for f in fields if f".. confval:: {name}.{f}\n" not in pages["reference/sources.rst"]] == [], name
    train = pages["reference/train.rst"]
    assert [f for f in surgeon.TrainSettings.model_fields if f".. confval:: train.{f}\n" not in train] == []
    recipe = pages["reference/recipe.rst"]
    assert [key for key in surgeon.recipe_schema()["properties"] if f":: {key}\n" not in recipe] == ["$schema"]
    assert ".. confval:: Stage.epoch\n" in pages["reference/parts.rst"]


def test_losses_penalties_schedules_and_callbacks_are_described(pages: dict[str, str]) -> None:
    plugins = load(installed=False)
    assert [name for name in plugins.losses() if f"\n{name}\n===" in pages["reference/losses.rst"]] == []
    assert [name for name in plugins.losses() if f"\n{name}\n---" not in pages["reference/losses.rst"]] == []
    assert {kind.__name__ for kind in penalties()} >= {"L2SP", "EWC", "LwF", "FeatureMatching", "Distillation"}
    assert all(kind.__name__ in pages["reference/penalties.rst"] for kind in penalties())
    assert "``dann``, ``linear``" in pages["reference/schedules.rst"]
    assert "early_stopping" in pages["reference/callbacks.rst"]


def test_every_command_has_a_page_with_its_options(pages: dict[str, str]) -> None:
    for name in (
        "apply",
        "plan",
        "train",
        "train-report",
        "inspect",
        "diff",
        "export",
        "push",
        "plugins",
        "plugins_new",
    ):
        assert "``--help``" in pages[f"reference/commands/{name}.rst"], name
    assert "``--set PATH=VALUE``" in pages["reference/commands/apply.rst"]
    assert "surgeon apply [OPTIONS] {RECIPE} [MODEL]" in pages["reference/commands/apply.rst"]


def test_every_exit_code_stands_with_its_errors(pages: dict[str, str]) -> None:
    page = pages["reference/exit_codes.rst"]
    for error in error_classes():
        assert f"* - {error.exit_code}\n" in page
        assert f":class:`~surgeon.{error.__name__}`" in page
    assert all(f"* - {code}" in page for code in (0, 2, 20, 130))


def test_everything_public_is_described(pages: dict[str, str]) -> None:
    text = "".join(
        text for path, text in pages.items() if path.startswith(("reference/python", "reference/operations"))
    )
    assert [name for name in surgeon.__all__ if f"surgeon.{name}" not in text] == ["__version__"]


def test_a_written_manifest_has_no_key_that_is_not_described(pages: dict[str, str], tmp_path: Path) -> None:
    model = surgeon.apply(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), [surgeon.Freeze(sites="0")], inputs=[[2, 2]])
    surgeon.save(model, tmp_path / "made")
    manifest = json.loads((tmp_path / "made" / "surgeon.json").read_text())
    assert set(manifest) <= set(KEYS)
    assert [name for name in KEYS if f"``{name}``" not in pages["reference/artifact.rst"]] == []
    record = manifest["record"]
    described = pages["reference/artifact.rst"]
    assert [key for key in record if f"manifest.Record.{key}\n" not in described] == []
    assert [key for key in record["surgeries"][0] if f"manifest.Surgeries.{key}\n" not in described] == []


def test_every_recipe_is_in_the_gallery(pages: dict[str, str]) -> None:
    names = [path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml")]
    assert [name for name in names if f"\n{name}\n~" not in pages["gallery.rst"]] == []
    assert "surgeon apply recipes/gallery/texts.yaml" in pages["gallery.rst"]


def test_selectors_in_docstrings_are_no_markup() -> None:
    assert escape("layer* or ``layer*``, a_ or :class:`A`") == r"layer\* or ``layer*``, a\_ or :class:`A`"
    assert docstring("- layer*\n\n    layer*") == "- layer\\*\n\n    layer*"


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="here"><a href="#here"></a><a href="b.html#x"></a><a href="c.html"></a>')
    (tmp_path / "b.html").write_text('<a href="https://example.org/x"></a><a href="a.html#here"></a>')
    assert broken_links(tmp_path) == ["a.html: b.html#x leads nowhere", "a.html: c.html leads nowhere"]


@pytest.mark.skipif(find_spec("sphinx") is None or find_spec("furo") is None, reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    assert build(tmp_path / "site") == 0
    assert (tmp_path / "site/reference/operations/freeze.html").exists()
