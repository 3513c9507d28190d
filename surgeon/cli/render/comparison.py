"""Draw a comparison of two networks: what changed, by block, site or tensor, then the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.cli.render.runs import merged, pattern
from surgeon.pages.numbers import count, shape
from surgeon.pipeline.difference import Diff, GroupDiff, Status, TensorDiff, figure
from surgeon.pipeline.movement import Movement

FORMS: tuple[Status, ...] = ("only in A", "only in B", "other shape", "other dtype")
ADDRESS = 24
"""Characters of an address that are never wrapped, even on a narrow terminal."""
MOST = 12
"""The most names in one line of the totals."""


def render_diff(diff: Diff, by: str = "block") -> RenderableType:
    """Draw a comparison, for a terminal of any width or a pipe.

    Args:
        diff: The comparison.
        by: What a line is about: ``block``, ``site`` or ``tensor``.
    """
    parts: list[RenderableType] = [_title("A", diff.a, diff.architecture_a), _title("B", diff.b, diff.architecture_b)]
    parts += [Text(), _tensors(diff) if by == "tensor" else _groups(diff.blocks if by == "block" else diff.sites, by)]
    return Group(*parts, Text(), _sums(diff))


def _title(letter: str, location: str, architecture: str | None) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    title = Text(location, style="bold")
    if architecture not in (None, location):
        title.append(f"  {architecture}", style="not bold dim")
    grid.add_row(letter, title)
    return grid


def _table(first: str, names: Iterable[str], headings: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    width = min(ADDRESS, max(map(len, names), default=0))
    table.add_column(first, min_width=width, overflow="fold")  # an address is only useful in full
    for heading in headings:
        words = heading in ("state", "what")
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _groups(groups: Sequence[GroupDiff], by: str) -> RenderableType:
    table = _table(by, (group.name for group in groups), ("moved", "relative", "cosine", "largest", "state"))
    for members in _alike(groups):
        first = members[0]
        compared = sum(group.compared for group in members)
        state = ", ".join(filter(None, (first.state, *_forms(members))))
        moved = sum(group.moved for group in members)
        style = "yellow" if moved or first.other else "dim"
        row = [f"{moved} of {compared}" if compared else "", *_movement(first.movement), state]
        table.add_row(merged([group.name for group in members]), *row, style=style)
    return table


def _alike(groups: Iterable[GroupDiff]) -> Iterator[list[GroupDiff]]:
    """Group consecutive groups that did not move and differ only in the numbers of their names."""

    def kind(group: GroupDiff) -> tuple[object, ...]:
        forms = frozenset(tensor.status for tensor in group.tensors)
        return (group.name,) if group.moved else (pattern(group.name), group.state, forms)

    for _, members in groupby(groups, kind):
        yield list(members)


def _forms(groups: Sequence[GroupDiff]) -> list[str]:
    """Count the tensors that only one network has, or that have another form: ``12 only in B``."""
    statuses = Counter(tensor.status for group in groups for tensor in group.tensors)
    return [f"{statuses[status]} {status}" for status in FORMS if statuses[status]]


def _tensors(diff: Diff) -> RenderableType:
    table = _table("tensor", (tensor.name for tensor in diff.tensors), ("relative", "cosine", "largest", "what"))
    for tensor in diff.tensors:
        changed = tensor.status not in ("same", "not compared") or tensor.state_changed
        description = ", ".join(filter(None, (_description(tensor), _state(tensor))))
        table.add_row(tensor.name, *_movement(tensor.movement), description, style="yellow" if changed else "dim")
    return table


def _description(tensor: TensorDiff) -> str:
    maker = f", made by {tensor.made_by}" if tensor.made_by else ""
    renamed = f", {tensor.name_a} in A" if tensor.name_a not in (None, tensor.name) else ""
    if tensor.status == "other shape" and tensor.shape_a is not None and tensor.shape_b is not None:
        return f"{shape(tensor.shape_a)} → {shape(tensor.shape_b)}{maker}{renamed}"
    if tensor.status == "other dtype":
        return f"{tensor.dtype_a} → {tensor.dtype_b}{maker}{renamed}"
    not_finite = f", {tensor.movement.not_finite} not finite" if tensor.movement and tensor.movement.not_finite else ""
    return f"{tensor.status}{maker}{renamed}{not_finite}"


def _state(tensor: TensorDiff) -> str:
    names = {True: "frozen", False: "trainable", None: ""}
    if tensor.state_changed:
        return f"{names[tensor.frozen_a]} → {names[tensor.frozen_b]}"
    return names[tensor.frozen] if tensor.parameter else ""


def _movement(movement: Movement | None) -> tuple[str, str, str]:
    if movement is None:
        return "", "", ""
    if movement.squared_step and movement.relative is None:
        return "from zero", "", figure(movement.largest)
    return figure(movement.relative), figure(movement.cosine), figure(movement.largest)


def _sums(diff: Diff) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("result", Text("equal", style="green") if diff.equal else Text("different", style="bold yellow"))
    for status in FORMS:
        if tensors := diff.with_status(status):
            grid.add_row(status, _listed(diff, status, tensors))
    shared = [tensor for tensor in diff.tensors if tensor.name_a is not None and tensor.shape_b is not None]
    if diff.values:
        whole = diff.whole
        relative, cosine, _ = _movement(whole.movement)
        by = f"; the parameters by {relative} of their norm, cosine {cosine}" if whole.moved and cosine else ""
        grid.add_row("moved", f"{whole.moved} of {whole.compared} tensors of the same shape{by}")
    else:
        grid.add_row("moved", "not compared: the structure only")
    if frozen := [tensor for tensor in shared if tensor.frozen]:
        moved = diff.frozen_moved
        names = ", ".join(tensor.name for tensor in moved[:MOST]) + (", …" if len(moved) > MOST else "")
        text = f"{len(moved)} of {len(frozen)} moved: {names}" if moved else f"{len(frozen)} tensors, none moved"
        text = text if diff.values else f"{len(frozen)} tensors"
        grid.add_row("frozen", Text(text, style="bold red" if moved else "green" if diff.values else ""))
    if changed := [tensor for tensor in shared if tensor.state_changed]:
        grid.add_row("training state", f"{count(len(changed))} tensors are frozen in one and trainable in the other")
    for number, note in enumerate(diff.notes):
        grid.add_row("" if number else "notes", note)
    return grid


def _listed(diff: Diff, status: Status, tensors: Sequence[TensorDiff]) -> str:
    """List a few tensors by name; for many, give their number and blocks."""
    if len(tensors) <= MOST:
        named = status.startswith("other")
        origins = [f", made by {tensor.made_by}" if tensor.made_by else "" for tensor in tensors]
        return "; ".join(
            f"{t.name} {_description(t)}" if named else t.name + by for t, by in zip(tensors, origins, strict=True)
        )
    makers = Counter(tensor.made_by for tensor in tensors)
    by = "".join(f", {number} made by {maker}" for maker, number in makers.items() if maker)
    names = [group.name for group in diff.blocks if any(tensor.status == status for tensor in group.tensors)]
    runs = [merged(list(alike)) for _, alike in groupby(names, pattern)]
    more = f" and {len(runs) - MOST} more" if len(runs) > MOST else ""
    return f"{len(tensors)} tensors{by}: {', '.join(runs[:MOST])}{more} (--by tensor names them)"
