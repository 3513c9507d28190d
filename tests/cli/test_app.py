"""The application holds the command that is typed, or all of them."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from surgeon.cli import app
from surgeon.cli.app import COMMANDS, make_app, run
from surgeon.errors import OutputError
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["schema", "ops", "--version", "ops freeze --json"])
def test_a_report_without_room_is_an_error_of_the_place(command: str) -> None:
    line = f"{sys.executable} -m surgeon {command} > /dev/full"
    result = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert result.returncode == OutputError.exit_code
    assert result.stderr.splitlines() == [
        "error: standard output cannot be written: No space left on device",
        "    files that the command wrote are complete; only what it prints is lost",
    ]


def test_a_file_without_room_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "out/model.safetensors")

    monkeypatch.setattr(app, "make_app", fill)
    assert run(["ops"]) == OutputError.exit_code
    assert "out/model.safetensors cannot be written: No space left on device" in capsys.readouterr().err


def test_a_closed_standard_output_leaves_no_traceback() -> None:
    line = f"{sys.executable} -m surgeon ops freeze >&-"
    result = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
