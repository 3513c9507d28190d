"""Draw predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from surgeon.training.predictions import Predictions

COLUMNS = 8
"""How many columns to show: the likeliest classes, or the first values."""


def render_predictions(predicted: Predictions, samples: int, path: str | None) -> RenderableType:
    """Draw the first samples, and where all samples are."""
    from surgeon.training.predictions import shown

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("sample")
    if predicted.parts:
        table.add_column("part")
    classes = predicted.kind == "class"
    words, boxes = predicted.kind == "words", predicted.kind == "boxes"
    headings = ("class", "probability", "next") if classes else ("class",) if words else predicted.names[:COLUMNS]
    headings = ("boxes",) if boxes else headings
    for heading in headings:
        is_text = boxes or heading in ("class", "next")
        table.add_column(Text(heading), no_wrap=not boxes, justify="left" if is_text else "right")
    if predicted.labels is not None:
        table.add_column("label", justify="left")
    for number, row in enumerate(predicted.values[:samples].tolist()):
        if classes:
            best, *rest = sorted(range(len(row)), key=lambda index: -row[index])
            after = ", ".join(f"{predicted.names[i]} {100 * row[i]:.1f} %" for i in rest[:2])
            cells = [predicted.names[best], f"{100 * row[best]:.1f} %", after]
        elif boxes:
            detections = predicted.rows[number]["boxes"]
            some = [
                f"{b['class']} {100 * b['score']:.0f} % ({', '.join(f'{s:.0f}' for s in b['box'])})" for b in detections
            ]
            cells = ["; ".join(some[:COLUMNS]) + (f"; {len(some) - COLUMNS} more" if len(some) > COLUMNS else "")]
        elif words:
            cells = [shown(predicted.classes[number])]
        else:
            cells = [
                f"{100 * value:.1f} %" if predicted.kind in ("yes", "pixels") else f"{value:.4g}"
                for value in row[:COLUMNS]
            ]
        cells = [predicted.samples[number], *([predicted.parts[number]] if predicted.parts else []), *cells]
        cells += [] if predicted.labels is None else [shown(predicted.labels[number])]
        table.add_row(*map(Text, cells))
    count = len(predicted)
    size = f"{count} samples" + (f", the first {samples} shown" if count > samples else "")
    where = f"all of them in {path}" if path else "-o OUT.csv writes all of them"
    notes = [Text(f"note: {note}", style="dim") for note in predicted.notes]
    return Group(table, *notes, Text(f"output {predicted.output}: {size}; {where}", style="dim"))
