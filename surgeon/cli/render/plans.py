"""Draw a plan as a diff, operation by operation: what is removed, added or changes its state; then the totals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from surgeon.cli.render.runs import merged, pattern
from surgeon.pages.numbers import count, shape, share, size
from surgeon.surgery.plan import Edit, Plan, Step

COLOURS = {"-": "red", "+": "green", "~": "yellow"}
SIGNS = {"-": "−", "+": "+", "~": "~"}
MOST_LINES = 24
WIDEST = 48
LEAST = 12
"""The least width of the columns with sites and descriptions, even on a narrow terminal."""
INDENT, GAP, SIGN = 3, 2, 2

Line = tuple[Text, Text, Text]
"""The site with its sign, its description, and the number of added or removed parameters."""


def render_plan(plan: Plan) -> RenderableType:
    """Draw the whole plan, for a terminal of any width or a pipe."""
    parts: list[RenderableType] = [_title(plan)]
    lines = [[_line(edits) for edits in _grouped(step.edits)] for step in plan.steps]
    widths = [min(WIDEST, max((len(row[i]) for rows in lines for row in rows), default=0)) for i in range(3)]
    for number, (step, rows) in enumerate(zip(plan.steps, lines, strict=True), start=1):
        parts += [Text(), *_step(number, step, rows, widths)]
    return Group(*parts, Text(), _summary(plan))


def _title(plan: Plan) -> Text:
    title = Text(plan.architecture, style="bold")
    if plan.source != plan.architecture:
        title.append(f"  from {plan.source}", style="not bold dim")
    return title


def _step(number: int, step: Step, rows: list[Line], widths: Sequence[int]) -> Iterator[RenderableType]:
    name, _, fields = step.operation.partition(" ")
    yield Text.assemble((f"{number}  ", "dim"), (name, "bold cyan"), (f"  {fields}" if fields else "", "cyan"))
    if rows:
        yield _Rows(rows[:MOST_LINES], widths)
    if len(rows) > MOST_LINES:
        yield Text(f"   … and {len(rows) - MOST_LINES} more lines (--json lists all)", style="dim")
    if not step.edits:
        yield Text("   nothing changes", style="dim")
    if step.notes:
        notes = Table.grid()
        for note in step.notes:
            notes.add_row(Text("   · ", style="dim"), Text(note, style="dim"))
        yield notes


@dataclass(frozen=True)
class _Rows:
    """Lines in columns of the same width in every step; on a narrow terminal the numbers keep their width."""

    rows: Sequence[Line]
    widths: Sequence[int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        site, description_width, number = self.widths
        room = max(2 * LEAST, options.max_width - INDENT - 2 * GAP - number)
        description_width = max(min(description_width, LEAST), min(description_width, room - site))
        grid = Table.grid()
        grid.add_column(width=SIGN)
        grid.add_column(
            width=min(site, room - description_width) - SIGN, overflow="fold"
        )  # an address is only useful in full
        grid.add_column(width=GAP)
        grid.add_column(width=description_width, overflow="fold")
        grid.add_column(width=GAP)
        grid.add_column(min_width=number, justify="right", no_wrap=True)
        for signed, description, parameters in self.rows:
            grid.add_row(signed[:1], signed[SIGN:], "", description, "", parameters)
        yield Padding(grid, (0, 0, 0, INDENT), expand=False)


def _grouped(edits: Sequence[Edit]) -> list[list[Edit]]:
    """Group edits that differ only in numbers, in the order of the first edit of each group."""
    groups: dict[tuple[str, str, str], list[Edit]] = {}
    for edit in edits:
        description = pattern(edit.what) if edit.what.startswith("was ") else edit.what
        groups.setdefault((edit.mark, pattern(edit.site), description), []).append(edit)
    return list(groups.values())


def _line(edits: list[Edit]) -> Line:
    first, colour = edits[0], COLOURS[edits[0].mark]
    site = merged([edit.site for edit in edits]) or "the whole network"
    description = merged([edit.what for edit in edits]) if first.what.startswith("was ") else _short(first.what)
    description = "was the whole network" if description == "was " else description
    many = f"{len(edits)} × " if len(edits) > 1 else ""
    parameters = sum(edit.parameters for edit in edits)
    sign = "" if first.mark == "~" else SIGNS[first.mark]
    return (
        Text(f"{SIGNS[first.mark]} {site}", style=colour),
        Text(f"{many}{description}", style="default"),
        Text(f"{sign}{count(parameters)}" if parameters else "", style=colour),
    )


def _short(text: str) -> str:
    """Shorten the description of a layer: ``Linear(512 → 10)``."""
    text = re.sub(r"in_features=(\d+), out_features=(\d+)", r"\1 → \2", text)
    return text.replace(", bias=True", "").replace(", inplace=True", "").replace("(inplace=True)", "")


def _summary(plan: Plan) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    trainable = f"{count(plan.trainable)} of them trainable ({share(plan.trainable, plan.parameters)})"
    grid.add_row("parameters", f"{count(plan.parameters_before)} → {count(plan.parameters)}, {trainable}")
    grid.add_row("tensors", plan.counts)
    grid.add_row("bytes", f"{size(plan.bytes_read)} to read, {size(plan.bytes_written)} to write")
    if plan.outputs:
        grid.add_row("outputs", ", ".join(f"{name} ({shape(sizes)})" for name, sizes in plan.outputs.items()))
    for number, reach in enumerate(plan.reaches):
        grid.add_row("" if number else "outside resources", str(reach))
    for number, note in enumerate(plan.notes):
        grid.add_row("" if number else "notes", note)
    return grid
