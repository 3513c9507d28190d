"""Draw predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.errors import counted

if TYPE_CHECKING:
    from surgeon.training.predictions import Predictions

LEFT = ("sample", "part", "class", "next", "boxes", "label", "words and their classes")
"""Headings of words; numbers stand at the right."""


def render_predictions(predicted: Predictions, samples: int, path: str | None) -> RenderableType:
    """Draw the first samples, and where all samples are."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    headings, rows = predicted.summary(samples)
    for heading, *cells in zip(headings, *rows, strict=True):
        if heading in LEFT:
            table.add_column(Text(heading), overflow="fold")
        else:  # a number stays in one line
            table.add_column(Text(heading), overflow="fold", justify="right", min_width=max(map(len, cells), default=0))
    for row in rows:
        table.add_row(*map(Text, row))
    count = len(predicted)
    size = counted(count, "sample") + (f", the first {samples} shown" if count > samples else "")
    where = f"all of them in {path}" if path else "-o OUT.csv writes all of them"
    notes = [Text(f"note: {note}", style="dim") for note in predicted.notes]
    return Group(table, *notes, Text(f"output {predicted.output}: {size}; {where}", style="dim"))
