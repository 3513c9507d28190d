"""Comments, docstrings, messages and pages are in plain words: none of the words that readers had to decode."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("surgeon", "plugins", "recipes", "tests", ".github")

AVOIDED = {
    r"lent": "given, passed",
    r"rungs?": "level, step",
    r"told": "reported, given, distinguished",
    r"met": "found, reached",
    r"afresh|anew": "again; reinitialised",
    r"(?<!there )is no(?! (longer|more|better|worse|larger|smaller|such)\b)": "is not a",
    r"as yet": "yet",
    r"of late": "recently",
    r"who(so)?ever": "who, everyone",
    r"(run|runs|kept|keep|are|is) in step": "has an entry for each, at the same pace",
    r"for good": "permanently",
    r"by heart": "memorised",
    r"for want of": "without",
    r"put back": "restored",
    r"(whence|thence|thereof|therein|hence|thus|amid|upon|nought|naught|behold)": "a word of today",
}
"""Words that do not stand in the text of the project, with what to write instead."""

NAMES = {"found", "each", "told", "met", "own", "known", "asked", "lent", "rungs"}
"""Names that say nothing of a variable: a participle or pronoun where a noun of the field belongs."""
NAMED = ("surgeon", "plugins", "recipes", "tests")

ALLOWED = {
    "surgeon/pages/assets/elk.LICENSE.md": "the text of a licence",
    "tests/test_words.py": "the list itself",
}
"""Files that may hold the words, with the reason."""

PATTERN = re.compile(rf"\b(?:{'|'.join(AVOIDED)})\b", re.IGNORECASE)


def files(*suffixes: str, folders: tuple[str, ...] = FOLDERS) -> Iterator[tuple[str, str]]:
    """The path and the text of every file of the project with one of ``suffixes``."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*paths, *(ROOT.glob("*.md") if folders == FOLDERS else ())]:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in suffixes and name not in ALLOWED:
            yield name, path.read_text(encoding="utf-8")


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """The lines of ``text`` that people read, with their numbers: of Python, comments and strings of several words."""
    if name.endswith(".md"):
        yield from enumerate(text.splitlines(), 1)
    elif name.endswith((".yaml", ".yml")):
        yield from ((at, line.partition("#")[2]) for at, line in enumerate(text.splitlines(), 1))
    else:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
                yield from enumerate(token.string.splitlines(), token.start[0])


def avoided(name: str, text: str) -> list[str]:
    """The places in ``text`` with a word that is avoided."""
    return [
        f"{name}:{at}: {match.group()!r} in: {line.strip()}"
        for at, line in prose(name, text)
        for match in PATTERN.finditer(line)
    ]


def unclear_names(name: str, text: str) -> list[str]:
    """The places in ``text`` that give a variable, parameter, function or class one of :data:`NAMES`."""
    places = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            given = node.id
        elif isinstance(node, ast.arg):
            given = node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            given = node.name
        else:
            continue
        if given.strip("_").lower() in NAMES:
            places.append(f"{name}:{node.lineno}: {given}")
    return places


def test_comments_docstrings_messages_and_pages_use_plain_words():
    assert [place for name, text in files(".py", ".md", ".yaml", ".yml") for place in avoided(name, text)] == []


def test_variables_and_functions_have_names_of_the_field():
    assert [place for name, text in files(".py", folders=NAMED) for place in unclear_names(name, text)] == []


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.py", '"""The path that it is told."""', 1),
        ("a.py", "x = 1  # drawn afresh, whoever asks", 2),
        ("a.py", 'raise ValueError(f"{folder} is no folder")', 1),
        ("a.py", "if told: pass", 0),
        ("a.md", "There is no run to resume; it is no longer there.", 0),
        ("a.md", "It is no mapping, as yet.", 2),
        ("a.yaml", "told: 1  # lent by the donor", 1),
    ],
)
def test_an_avoided_word_is_seen_in_text_alone(name, text, count):
    assert len(avoided(name, text)) == count


def test_a_name_that_says_nothing_is_seen():
    text = "def f(known):\n    told = [each for each in known]\n\nclass Own: pass"
    assert sorted(unclear_names("a.py", text)) == ["a.py:1: known", "a.py:2: each", "a.py:2: told", "a.py:4: Own"]
