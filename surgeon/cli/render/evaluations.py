"""Draw the metrics of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.training.measure_tables import BY_NAME

if TYPE_CHECKING:
    from surgeon.training.evaluation import Evaluation

WIDEST = 12
"""The most classes for which the confusion matrix is shown."""
SHARES = ("accuracy", "balanced_accuracy")


def render_evaluation(evaluation: Evaluation) -> RenderableType:
    """Draw the metrics of every output: in one line, by class, and the confusion matrix."""
    notes = [Text(f"note: {note}", style="dim") for note in evaluation.notes]
    return Group(*notes, *render_measures(evaluation.measures, evaluation.names))


def render_measures(
    measures: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Mapping[str, Sequence[str]]
) -> Iterator[RenderableType]:
    """Show the measures of each output and domain.

    Args:
        measures: The measures by output, domain and name.
        names: The classes, questions or values of each output.
    """
    for output, by_domain in measures.items():
        for domain, values in by_domain.items():
            title = output if domain == "all" else f"{output}, {domain}"
            numbers = "  ".join(f"{name} {_number(name, value)}" for name, value in _plain(values))
            yield Text(f"{title}: {numbers}")
            if domain == "all":
                yield from _tables(values, names.get(output, ()))


def _plain(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    yield from ((name, value) for name, value in values.items() if isinstance(value, (int, float)))


def _tables(values: Mapping[str, Any], names: Sequence[str]) -> Iterator[RenderableType]:
    for key, heading in BY_NAME.items():
        rows: Mapping[str, Mapping[str, Any]] = values.get(key) or {}
        if rows:
            columns = list(next(iter(rows.values())))
            table = _table([heading, *columns])
            for name, row in rows.items():
                table.add_row(Text(name), *(_number(column, row[column]) for column in columns))
            yield table
    matrix = values.get("confusion")
    if matrix and len(matrix) <= WIDEST:
        labels = list(names) if len(names) == len(matrix) else [str(number) for number in range(len(matrix))]
        table = _table(["true \\ predicted", *labels])
        for name, row in zip(labels, matrix, strict=True):
            table.add_row(Text(name), *map(str, row))
        yield table


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if number else "left")
    return table


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{100 * value:.1f} %" if name in SHARES else f"{value:.4g}"
