"""The application holds the command that is typed, or all of them."""

from __future__ import annotations

import pytest
import typer

from surgeon.cli.app import COMMANDS, make_app, run
from surgeon.plugins import Plugins


def commands(*words: str) -> set[str]:
    return set(typer.main.get_command(make_app(Plugins(), words)).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["apply", "train-report"])
def test_a_command_is_prepared_without_the_others(name: str) -> None:
    assert commands(name, "--help") & set(COMMANDS) == {name}


@pytest.mark.parametrize("words", [(), ("--help",), ("aply", "recipe.yaml"), ("--version", "apply")])
def test_without_a_command_in_front_there_are_all(words: tuple[str, ...]) -> None:
    assert commands(*words) >= set(COMMANDS)


def test_a_mistyped_command_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["aply"]) == 2
    assert "apply" in capsys.readouterr().err
