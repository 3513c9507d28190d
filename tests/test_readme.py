"""The README shows what its commands print."""

from __future__ import annotations

import pytest
from readme import COMMAND, README, printed, regenerated, shown

SHOWN = shown(README.read_text(encoding="utf-8"))


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_command_prints_what_the_readme_shows(arguments):
    assert printed(arguments) == SHOWN[arguments], f"write it again: {COMMAND}"


def test_the_plan_of_the_quickstart_and_the_help_of_an_operation_are_shown():
    assert {arguments.split()[0] for arguments in SHOWN} == {"plan", "ops"}


def test_writing_the_readme_again_changes_only_what_commands_print():
    text = "before\n<!-- output: surgeon --version -->\n```text\nold\n```\nafter\n```text\nnot a command\n```\n"
    again = regenerated(text)
    assert again == text.replace("old", printed("--version"))
    assert regenerated(again) == again
