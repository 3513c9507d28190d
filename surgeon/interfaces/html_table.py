"""Small tables in HTML for notebooks: self-contained, everything in them escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MOST_ROWS = 200
"""Rows of a table that a notebook shows; the data hold all."""
NUMERIC = frozenset("0123456789.,+-−×%eE ")


def html_report(title: str, *parts: str, notes: Iterable[str] = ()) -> str:
    """Make one block of HTML of a title, parts that are HTML already, and notes.

    Args:
        title: Plain text.
        *parts: Tables by :func:`html_table`.
        notes: Plain text, one line each.
    """
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    listed = f'<ul style="opacity:0.7">{lines}</ul>' if lines else ""
    return f"<div><p><b>{escape(title)}</b></p>{''.join(parts)}{listed}</div>"


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Make a table of plain text; numbers stand at the right, and so do the names of columns of numbers.

    Args:
        head: The names of the columns.
        rows: The cells; None is empty. Of more than :data:`MOST_ROWS`, the first are shown, with the number of others.
        caption: What it shows, above the table.
    """
    listed = list(rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    texts = [[_text(value) for value in row] for row in listed[:MOST_ROWS]]
    columns = [list(filter(None, column)) for column in zip(*texts, strict=True)] or [[] for _ in head]
    sides = ["right" if column and all(map(_is_number, column)) else "left" for column in columns]
    top = "".join(f'<th style="text-align:{side}">{escape(name)}</th>' for name, side in zip(head, sides, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in texts)
    if len(listed) > MOST_ROWS:
        body += f'<tr><td colspan="{len(head)}">… and {len(listed) - MOST_ROWS} more</td></tr>'
    return f"<table>{above}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: object) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(text: str) -> bool:
    return set(text) <= NUMERIC and any(character.isdigit() for character in text)


def _cell(text: str) -> str:
    return f'<td style="text-align:{"right" if _is_number(text) else "left"}">{escape(text)}</td>'
