"""The application holds the command that is typed, or all of them."""

from __future__ import annotations

import subprocess
import sys

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


def test_no_line_of_the_list_of_commands_is_cut(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    out = capfd.readouterr().out
    assert [line for line in out.splitlines() if line.endswith("...") and "Usage" not in line] == []


def test_a_closed_pipe_prints_no_traceback() -> None:
    command = f"{sys.executable} -m surgeon schema | head -c 10"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in result.stderr
