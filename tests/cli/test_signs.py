"""Terminals that lack signs get ASCII, and no value of JSON changes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from surgeon.cli import run
from surgeon.cli.signs import ascii_form, write_what_fits

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "recipes/digits.pt")
COMMANDS = {
    "plan": ["plan", str(ROOT / "recipes/quickstart.yaml"), DIGITS],
    "inspect": ["inspect", DIGITS],
    "diff": ["diff", DIGITS, DIGITS],
    "ops": ["ops"],
    "an operation": ["ops", "gradient_reversal"],
    "schema": ["schema"],
    "plugins": ["plugins"],
    "an error": ["plan", str(ROOT / "recipes/quickstart.yaml"), "nowhere/é…−.pt"],
    "an error as JSON": ["inspect", "nowhere/é…−.pt", "--json"],
    "a mistake": ["plan", "--colour"],
}


def printed(arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The exit code, and what a command writes on streams of an encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    write_what_fits(*streams)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = run(arguments)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_command_prints_on_a_terminal_that_lacks_signs(arguments, encoding, monkeypatch):
    code, out, err = printed(arguments, encoding, monkeypatch)
    expected = printed(arguments, "utf-8", monkeypatch)
    assert (code, "bug in" in err) == (expected[0], False)
    assert out.count("\n") == expected[1].count("\n")
    assert "\\u" not in (err if "--json" not in arguments and "nowhere" not in "".join(arguments) else "")


def test_json_is_the_same_data_whatever_the_terminal_can_print(monkeypatch):
    arguments = ["inspect", "nowhere/é…−.pt", "--json"]
    plain, full = (json.loads(printed(arguments, encoding, monkeypatch)[1]) for encoding in ("ascii", "utf-8"))
    assert plain == full
    assert "é…−" in plain["error"]["where"] + plain["error"]["message"]


def test_a_process_prints_a_plan_in_the_terminals_encoding():
    command = [sys.executable, "-m", "surgeon", *COMMANDS["plan"]]
    process = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert process.returncode == 0, process.stderr
    assert b"-90.0 k" in process.stdout


@pytest.mark.parametrize(
    ("sign", "plain"), [("−", "-"), ("…", "..."), ("é", "e"), ("猫", "\\u732b"), ("\udc80", "\\udc80")]
)
def test_a_sign_has_a_plain_form(sign, plain):
    assert ascii_form(sign) == plain
