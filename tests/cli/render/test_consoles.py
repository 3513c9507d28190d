"""Names from strangers' files cannot control the terminal, and a report can do without a standard output."""

from __future__ import annotations

import io
import sys

import pytest
from rich.table import Table
from rich.text import Text

from surgeon.cli import app
from surgeon.cli.render.consoles import VisibleConsole, show

HOSTILE = "red\x1b[31m\x9b2Jback\x7f"
VISIBLE = "red␛[31m\ufffd2Jback␡"


@pytest.mark.parametrize("stderr", [False, True])
def test_control_characters_are_escaped_in_a_pipe(capsys: pytest.CaptureFixture[str], stderr: bool) -> None:
    table = Table("site")
    table.add_row(Text(HOSTILE, style="red"))
    show(table, stderr=stderr)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert VISIBLE[:10] in (err if stderr else out)  # which may be cut: a control character has no width


def test_a_terminal_gets_the_colours_of_the_report_and_no_others() -> None:
    file = io.StringIO()
    VisibleConsole(file=file, force_terminal=True, color_system="standard", width=80).print(
        Text(HOSTILE, style="green")
    )
    assert file.getvalue() == f"\x1b[32m{VISIBLE}\x1b[0m\n"


def test_a_hostile_name_in_a_mistake_is_escaped(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["inspect", f"{HOSTILE}.pt"]) == 4
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert VISIBLE in err


def test_without_standard_output_a_report_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    show(Text("nobody reads this"))
    assert app.run(["ops", "freeze"]) == 0
