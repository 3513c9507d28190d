"""Show measures as tables in notebooks: single numbers by domain, each class, the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from surgeon.interfaces.html_table import html_table

BY_NAME = {"per_class": "class", "per_label": "question", "per_value": "value"}
"""Measures with a row for each class, question or value, and the headings of their names."""
MOST_CLASSES = 40
"""The most classes for which the confusion matrix is shown."""


def domain_table(output: str, domains: Mapping[str, Mapping[str, Any]]) -> str:
    """Make the table of an output's measures that are single numbers: a row for each domain."""
    names = single_numbers(domains)
    rows = [(domain, *(figure(values.get(name)) for name in names)) for domain, values in domains.items()]
    return html_table(["domain", *(name.replace("_", " ") for name in names)], rows, caption=output)


def single_numbers(domains: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List the measures that are single numbers, in any domain."""
    named = (item for values in domains.values() for item in values.items())
    return list(dict.fromkeys(name for name, value in named if isinstance(value, (int, float))))


def class_tables(values: Mapping[str, Any], names: Sequence[str] = ()) -> Iterator[str]:
    """Make the tables of single classes, questions or values, and the confusion matrix.

    Args:
        values: The measures of one output.
        names: The names of its classes; numbers without.
    """
    for key, heading in BY_NAME.items():
        rows: Mapping[str, Mapping[str, Any]] = values.get(key) or {}
        if rows:
            columns = list(next(iter(rows.values())))
            cells = [(name, *(figure(row.get(column)) for column in columns)) for name, row in rows.items()]
            yield html_table([heading, *(column.replace("_", " ") for column in columns)], cells)
    matrix = values.get("confusion")
    if matrix and len(matrix) <= MOST_CLASSES:
        labels = list(names) if len(names) == len(matrix) else [str(number) for number in range(len(matrix))]
        counts = [(name, *row) for name, row in zip(labels, matrix, strict=True)]
        yield html_table(["true \\ predicted", *labels], counts)


def figure(value: Any) -> str:
    """Format a number to four figures; empty for None."""
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
