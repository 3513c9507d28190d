"""Read tables of class attributes: one row for each class."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from surgeon.errors import OperationError, suggest

Row = Sequence[float] | Mapping[str, float]


@dataclass(frozen=True)
class AttributeTable:
    """Hold the attributes of classes.

    Attributes:
        classes: The names of the classes.
        attributes: The names of the attributes; their numbers if they have no names.
        values: One row for each class, one number for each attribute.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


def table_of(rows: Mapping[str, Row], where: str = "attributes") -> AttributeTable:
    """Make a table from a mapping of class to numbers, or to a mapping of attribute to number.

    Raises:
        OperationError: Rows differ in length or in their attributes, or a value is not finite.
    """
    first = next(iter(rows.values()), ())
    named = list(first) if isinstance(first, Mapping) else None
    values = []
    for name, row in rows.items():
        if isinstance(row, Mapping) != (named is not None):
            raise OperationError(f"{name} and the other classes must all name their attributes, or none", where=where)
        if isinstance(row, Mapping):
            if named is not None and set(row) != set(named):
                differing = sorted(set(row) ^ set(named))
                raise OperationError(
                    f"{name} differs from {next(iter(rows))} in {', '.join(differing[:3])}", where=where
                )
            row = [row[attribute] for attribute in named or row]
        if len(row) != len(first):
            raise OperationError(f"{name} has {len(row)} attributes, and {next(iter(rows))} {len(first)}", where=where)
        values.append(tuple(float(value) for value in row))
    names = tuple(named) if named is not None else tuple(str(i) for i in range(len(first)))
    return _checked(AttributeTable(tuple(rows), names, tuple(values)), where)


def read_table(path: str | Path) -> AttributeTable:
    """Read a CSV file: a header with the attributes' names, then one line for each class, its name first.

    Raises:
        OperationError: The file does not exist, or one of its lines is not a row of the table.
    """
    path = Path(path)
    if not path.is_file():
        beside = [str(other) for other in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise OperationError("no such file", where=str(path), hint=suggest(str(path), beside))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), start=1) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OperationError(f"is not CSV text: {error}", where=str(path)) from error
    if not lines:
        raise OperationError(
            "is empty", where=str(path), hint="a header: class,ATTRIBUTE,…; then a line for each class"
        )
    header = [name.strip() for name in lines[0][1][1:]]
    rows: dict[str, tuple[float, ...]] = {}
    for number, (name, *cells) in lines[1:]:
        where = f"{path}:{number}"
        if len(cells) != len(header):
            raise OperationError(f"{name} has {len(cells)} values for {len(header)} attributes", where=where)
        if name.strip() in rows:
            raise OperationError(f"the class {name.strip()!r} is listed twice", where=where)
        try:
            rows[name.strip()] = tuple(float(cell) for cell in cells)
        except ValueError as error:
            raise OperationError(f"{name}: {error}", where=where) from None
    return _checked(AttributeTable(tuple(rows), tuple(header), tuple(rows.values())), str(path))


def mapping_of(table: AttributeTable) -> dict[str, dict[str, float]]:
    """Map each class to its attributes by name."""
    rows = zip(table.classes, table.values, strict=True)
    return {name: dict(zip(table.attributes, row, strict=True)) for name, row in rows}


def _checked(table: AttributeTable, where: str) -> AttributeTable:
    if not table.classes or not table.attributes:
        raise OperationError("has no classes" if not table.classes else "has no attributes", where=where)
    twice = sorted({name for name in table.attributes if table.attributes.count(name) > 1})
    if twice:
        raise OperationError(f"the attribute {twice[0]!r} is listed twice", where=where)
    for name, row in zip(table.classes, table.values, strict=True):
        if not all(math.isfinite(value) for value in row):
            raise OperationError(f"{name} has an attribute that is not a finite number", where=where)
    return table
