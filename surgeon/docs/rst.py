"""Write reStructuredText: headings, tables, lists of keys; docstrings are written in it already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from textwrap import indent

SPECIAL = re.compile(r"(``.+?``|:[\w:]+:`[^`]+`|`[^`]+`__?)|([*|`\\]|(?<=\w)_(?!\w))", re.DOTALL)
"""A literal, a role or a link, which stay as they are; or a character with a meaning in reStructuredText."""
RULES = "=-~^"


def escape(text: str) -> str:
    """Escape plain text; what stands in double backticks, roles and links keep their meaning."""
    return SPECIAL.sub(lambda match: match[1] or "\\" + match[2], text)


def docstring(text: str) -> str:
    """Escape a docstring: its lists and indented blocks keep their meaning."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if block.startswith("    ") else _escape_items(block) for block in blocks)


def _escape_items(block: str) -> str:
    marked = re.split(r"^(\s*[-*] )", block, flags=re.MULTILINE)
    return "".join(part if at % 2 else escape(part) for at, part in enumerate(marked))


def literal(text: str) -> str:
    """Format text as code."""
    return f"``{text}``"


def heading(title: str, level: int = 0, *, label: str = "") -> str:
    """Write a heading, with a label that ``:ref:`` finds."""
    return (f".. _{label}:\n\n" if label else "") + f"{title}\n{RULES[level] * (len(title) + 2)}\n"


def directive(name: str, argument: str = "", body: str = "", **options: str) -> str:
    """Write a directive, with its options and body."""
    lines = [f".. {name}:: {argument}".rstrip(), *(f"   :{key}: {value}".rstrip() for key, value in options.items())]
    return "\n".join(lines) + "\n" + (f"\n{indent(body.strip(), '   ')}\n" if body.strip() else "")


def code(text: str, language: str = "yaml") -> str:
    """Write a block of code."""
    return directive("code-block", language, text)


def key(name: str, text: str, kind: str = "", default: str | None = None, *, required: bool = False) -> str:
    """Describe a key, so that links and the search find it.

    Args:
        name: Its name, with that of its owner.
        text: Plain text about it.
        kind: Its type, as reStructuredText.
        default: As JSON.
        required: Whether there is no default.
    """
    facts = {"Type": kind, "Default": literal(default) if default is not None else "", "Required": "yes" * required}
    fields = "\n".join(f":{fact}: {value}" for fact, value in facts.items() if value)
    return directive("confval", name, f"{escape(text)}\n\n{fields}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, widths: str = "auto") -> str:
    """Write a table; cells are reStructuredText."""
    lines = []
    for row in [header, *rows]:
        for at, cell in enumerate(row):
            lines.append(("* - " if at == 0 else "  - ") + cell.replace("\n", "\n    "))
    options = {"header-rows": "1", "widths": widths}
    return directive("list-table", "", "\n".join(lines), **options)


def contents(names: Iterable[str], *, depth: int = 1, caption: str = "", hidden: bool = False) -> str:
    """Write a table of contents over pages."""
    options = {"maxdepth": str(depth)} | ({"caption": caption} if caption else {}) | ({"hidden": ""} if hidden else {})
    return directive("toctree", "", "\n".join(names), **options)
