"""README and the handwritten pages show what their commands print, and README is short."""

from __future__ import annotations

import re

import pytest
from readme import COMMAND, PAGES, README, printed, regenerated, shown

SHOWN = {arguments: text for page in PAGES for arguments, text in shown(page.read_text(encoding="utf-8")).items()}


@pytest.mark.parametrize("arguments", SHOWN)
def test_a_command_prints_what_a_page_shows(arguments):
    assert printed(arguments) == SHOWN[arguments], f"write it again: {COMMAND}"


def test_the_plan_of_the_quickstart_and_the_help_of_an_operation_are_shown():
    assert {arguments.split()[0] for arguments in SHOWN} == {"plan", "ops"}


def test_the_readme_shows_a_plan_and_is_short_enough_to_be_read():
    text = README.read_text(encoding="utf-8")
    assert [arguments.split()[0] for arguments in shown(text)] == ["plan"]
    assert len(text.splitlines()) <= 300, "move detail to a page in surgeon/docs"


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_writing_a_page_again_changes_only_what_commands_print():
    text = "before\n<!-- output: surgeon --version -->\n```text\nold\n```\nafter\n```text\nnot a command\n```\n"
    again = regenerated(text)
    assert again == text.replace("old", printed("--version"))
    assert regenerated(again) == again
