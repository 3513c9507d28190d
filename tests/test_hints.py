"""What messages suggest exists: every flag, command, key of a recipe and public name in the source of a hint."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import surgeon
from surgeon.cli.app import make_app
from surgeon.plugins import load

ROOT = Path(surgeon.__file__).parent
SUGGESTING = ("hint", "advice", "remedy", "fix", "how", "what_to_do")
"""Names under which the code keeps a suggestion."""
GAP = "\x00"
"""Stands for what an f-string fills in."""
OPENING = ("--arch", "--key", "--trust-pickle", "--trust-code")
"""Flags that messages about a checkpoint suggest, in whatever command it is opened."""
OPENERS = ("apply", "plan", "train", "advise", "predict", "evaluate", "export", "inspect", "diff")
OTHERS = ("pip", "git", "zip", "hf", "tar", "torchrun", "uv")
"""Commands of other programs, whose flags are theirs."""
PROSE = {
    "another", "available", "hf", "https", "lambda", "nearest", "note", "old", "one",
    "pictures", "python", "run", "see", "sounds", "supported", "tables", "texts",
}  # fmt: skip
"""Words that stand before a colon and are no keys."""
NAMES = ("blocks", "input_ids")
"""Keys of sections that take any name: of a role, of an input."""


@dataclass(frozen=True)
class Hint:
    """A suggestion in the source."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text.replace(GAP, '…')}"


def text_of(node: ast.expr) -> str:
    """The text of a literal, with a gap for each value that is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return ""


def literals(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts that an expression may come to: both sides of a condition, parts of a sum."""
    if isinstance(node, (ast.Constant, ast.JoinedStr)):
        if text := text_of(node):
            yield node.lineno, text
    elif isinstance(node, ast.BinOp):
        yield from literals(node.left)
        yield from literals(node.right)
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from literals(value)


def suggests(node: ast.AST) -> bool:
    """Whether a node gives a suggestion its text."""
    if isinstance(node, ast.keyword):
        return node.arg in SUGGESTING
    return isinstance(node, ast.Assign) and any(getattr(target, "id", None) in SUGGESTING for target in node.targets)


@cache
def hints() -> tuple[Hint, ...]:
    """Every suggestion in the source of the package."""
    hints = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values: list[ast.expr] = []
            if suggests(node):
                values = [node.value]
            hints += [Hint(name, line, text) for value in values for line, text in literals(value)]
    return tuple(hints)


@cache
def options() -> dict[str, set[str]]:
    """The options of each command."""
    command: Any = typer.main.get_command(make_app(load()))
    everywhere = {flag for parameter in command.params for flag in parameter.opts}
    return {
        name: everywhere | {flag for parameter in sub.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for name, sub in command.commands.items()
    }


@cache
def keys() -> dict[str, set[str]]:
    """The keys of each operation, and under '' those of everything else in a recipe."""
    schema = json.loads((ROOT / "recipe.schema.json").read_text(encoding="utf-8"))
    of: dict[str, set[str]] = {"": set(schema["properties"])}
    for part in schema["$defs"].values():
        properties = part.get("properties", {})
        name = properties.get("op", {}).get("const")
        of.setdefault(name or "", set()).update(properties)
    return of


def own_words(text: str) -> str:
    """A hint without what it says of other programs."""
    parts = re.split(r";|, or |     ", text)
    return "; ".join(part for part in parts if not any(re.search(rf"\b{other} ", part) for other in OTHERS))


def flags(text: str) -> list[str]:
    """The flags that a hint names."""
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", own_words(text))


def test_the_hints_are_found():
    assert len(hints()) > 300
    assert any("--trust-pickle" in hint.text for hint in hints())


def test_a_flag_in_a_hint_is_one_of_a_command():
    valid = set().union(*options().values(), {"--help"})
    assert not [str(hint) for hint in hints() for flag in flags(hint.text) if flag not in valid]


def test_a_flag_in_a_hint_of_a_command_is_one_of_that_command():
    wrong = []
    for hint in hints():
        named = re.findall(r"\bsurgeon ([a-z]+)\b", hint.text) if "; surgeon" not in hint.text else []
        here = [Path(hint.file).stem] if hint.file.startswith("cli/") and Path(hint.file).stem in options() else []
        for flag in flags(hint.text):
            commands = [name for name in (*named, *here) if name in options()]
            if commands and not any(flag in options()[name] for name in commands):
                wrong.append(f"{flag}: {hint}")
    assert not wrong


@pytest.mark.parametrize("command", OPENERS)
def test_a_command_that_opens_checkpoints_has_the_flags_that_their_errors_suggest(command):
    assert set(OPENING) <= options()[command]


def test_a_command_in_a_hint_exists():
    named = [
        (name, hint)
        for hint in hints()
        for name in re.findall(r"\bsurgeon ([a-z]+)\b(?! (?:shows|reads|does))", hint.text)
    ]
    prose = {
        "that",
        "shows",
        "reads",
        "does",
        "has",
        "trains",
        "makes",
        "takes",
        "itself",
        "and",
        "was",
        "writes",
        "knows",
    }
    assert not [str(hint) for name, hint in named if name not in options() and name not in prose]


def test_a_public_name_in_a_hint_exists():
    named = [(name, hint) for hint in hints() for name in re.findall(r"\bsurgeon\.([A-Za-z_]+)", hint.text)]
    assert not [
        str(hint)
        for name, hint in named
        if not hasattr(surgeon, name)
        and not (ROOT / name).exists()
        and not (ROOT / f"{name}.py").exists()
        and name not in ("json", "schema")
    ]


KEY = re.compile(r"(?:^|[`{(\[,:;|] ?|\b(?:say|use|set|give) )([a-z]\w*): (?=[\w\[{'\"…\x00.])")
"""A key with its value, at the start, behind a sign, or behind a word that does not make it prose."""


def test_a_key_in_a_hint_is_one_of_a_recipe():
    everywhere = set().union(*keys().values())
    wrong = []
    for hint in hints():
        operation = hint.file.split("/")[1].removesuffix(".py") if hint.file.startswith("operations/") else ""
        named = [name for name in keys() if name and re.search(rf"\b{name}\b", hint.text)]
        valid = keys()[""] | set(keys())
        for name in ([operation] if operation in keys() else []) + named:
            valid = valid | keys()[name]
        if not operation or operation not in keys():
            valid = everywhere | set(keys())
        for key in KEY.findall(hint.text):
            if key not in valid and key not in PROSE.union(NAMES, open_keys()):
                wrong.append(f"{key}: {hint}")
    assert not wrong


@cache
def open_keys() -> set[str]:
    """Keys of sections that a schema leaves open: TrainingArguments and callbacks."""
    import dataclasses

    import transformers

    return {field.name for field in dataclasses.fields(transformers.TrainingArguments)} | {"patience", "metric"}


def test_a_key_of_data_in_a_hint_is_one_of_a_source():
    named = [(key, hint) for hint in hints() for key in re.findall(r"\bdata\.(\w+)", hint.text)]
    assert not [str(hint) for key, hint in named if key not in keys()[""]]
    general = [str(hint) for _, hint in named if not hint.file.startswith("data/")]
    assert not general, "which source the data come from is not known here"
