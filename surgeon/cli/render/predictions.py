"""Predictions as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from surgeon.training.predicting import Predictions

COLUMNS = 8
"""How many columns a person is shown: of classes the likeliest, of others the first."""


def render_predictions(found: Predictions, samples: int, path: str | None) -> RenderableType:
    """The first samples, and where all of them lie."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("sample", justify="right")
    classes = found.kind == "class"
    for heading in ("class", "probability", "next") if classes else found.names[:COLUMNS]:
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("class", "next") else "right")
    if found.labels is not None:
        table.add_column("label", justify="right")
    for number, row in enumerate(found.values[:samples].tolist()):
        if classes:
            best, *others = sorted(range(len(row)), key=lambda index: -row[index])
            after = ", ".join(f"{found.names[i]} {100 * row[i]:.1f} %" for i in others[:2])
            cells = [found.names[best], f"{100 * row[best]:.1f} %", after]
        else:
            cells = [f"{100 * value:.1f} %" if found.kind == "yes" else f"{value:.4g}" for value in row[:COLUMNS]]
        label = found.labels[number] if found.labels is not None else None
        cells += [] if found.labels is None else ["" if label is None else f"{label:g}"]
        table.add_row(str(number), *cells)
    count = len(found.values)
    told = f"{count} samples" + (f", the first {samples} shown" if count > samples else "")
    where = f"all of them in {path}" if path else "-o OUT.csv writes all of them"
    return Group(table, Text(f"output {found.output}: {told}; {where}", style="dim"))
