"""Put a page together: the template, the style sheet, the scripts and the data, in one file without references."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from surgeon.interfaces.html_table import html_table
from surgeon.pages.drawing import Drawing

SCRIPTS = ("selectors.js", "graph.js", "layers.js", "page.js")


@dataclass(frozen=True)
class Section:
    """Hold a part of a page below the graph.

    Attributes:
        title: Its heading.
        body: HTML.
    """

    title: str
    body: str


@dataclass(frozen=True)
class Page:
    """Hold what a page shows.

    Attributes:
        title: What it is about.
        subtitle: Where that comes from.
        facts: What stands at the top: names and values.
        drawings: The networks, by what their buttons say (``before``, ``after``); the last one is shown first.
        sections: The parts below the graph.
        notes: Remarks, one line each.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    drawings: dict[str, Drawing]
    sections: Sequence[Section] = ()
    notes: Iterable[str] = field(default=())


def render_page(page: Page) -> str:
    """Make the HTML of a page."""
    notes = [*page.notes, *(drawing.note for drawing in page.drawings.values() if drawing.note)]
    sections = list(page.sections)
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in dict.fromkeys(notes))
        sections.append(Section("Notes", f"<ul>{items}</ul>"))
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    body = "".join(f"<section><h2>{escape(part.title)}</h2>{part.body}</section>" for part in sections)
    values = {
        "TITLE": escape(page.title),
        "SUBTITLE": escape(page.subtitle),
        "STYLE": _asset("page.css"),
        "FACTS": facts,
        "SECTIONS": body,
        "DATA": _script_json({name: drawing.data for name, drawing in page.drawings.items()}),
        "ELK": base64.b64encode(_bytes("elk.js.gz")).decode("ascii") if page.drawings else "",
        "SCRIPT": "\n".join(_asset(name) for name in SCRIPTS),
        "GRAPH": "" if page.drawings else "hidden",
    }
    parts = _asset("page.html").split("@@")
    return "".join(values[part] if number % 2 else part for number, part in enumerate(parts))


def table_section(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> Section:
    """Make a section of one table of plain text."""
    return Section(title, f'<div class="scroll">{html_table(head, rows)}</div>')


def text_section(title: str, text: str) -> Section:
    """Make a section of text as it was written, such as a recipe."""
    return Section(title, f"<pre>{escape(text)}</pre>")


def _script_json(value: Any) -> str:
    """Write JSON that cannot end the script element that it stands in."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


@cache
def _bytes(name: str) -> bytes:
    return files("surgeon.pages").joinpath("assets", name).read_bytes()


def _asset(name: str) -> str:
    return _bytes(name).decode("utf-8")
