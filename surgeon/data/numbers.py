"""Inputs of plain numbers from the columns of a table: as they are, standardised, or of categories by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from surgeon.data.class_names import listed, natural
from surgeon.errors import TrainingError

Array = np.ndarray[Any, Any]
Coding: TypeAlias = Literal["one_hot", "ordinal"]


@dataclass
class Numbers:
    """Encodes several columns as one input, ``(values,)`` a row, in the order of the columns.

    A category is ``one_hot``, a value for each name, or ``ordinal``, the place of its name in the list.

    Attributes:
        name: The input.
        columns: The columns.
        categories: How columns of categories are coded, and their names in order.
        mean: What is subtracted from each column of numbers; None where they stay as they are.
        std: What each is divided by then.
        scaled: Whether columns of numbers are to be standardised.
    """

    name: str
    columns: list[str]
    categories: dict[str, tuple[Coding, tuple[str, ...]]] = field(default_factory=dict)
    mean: dict[str, float] | None = None
    std: dict[str, float] | None = None
    scaled: bool = False

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The numbers of a row."""
        return self.many({column: [row[column]] for column in self.columns})[0]

    def many(self, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Tensor]]:
        """The numbers of several rows."""
        values = torch.from_numpy(np.concatenate([self._coded(name, columns[name]) for name in self.columns], axis=1))
        return [{self.name: row} for row in values.float()]

    @property
    def plain(self) -> list[str]:
        """The columns of numbers, without those of categories."""
        return [column for column in dict.fromkeys(self.columns) if column not in self.categories]

    @property
    def used(self) -> dict[str, Any]:
        """How the columns become numbers, as plain values; nothing where they are taken as they are."""
        made: dict[str, Any] = {}
        if self.categories:
            made["categories"] = {name: {coding: list(names)} for name, (coding, names) in self.categories.items()}
        if self.mean is not None and self.std is not None:
            made |= {"mean": self.mean, "std": self.std}
        return made

    def fit(self, parts: Sequence[Any]) -> None:
        """Take mean and deviation of the columns from the rows of training, ``datasets.Dataset``s."""
        self.mean, self.std = {}, {}
        for column in self.plain:
            values = np.concatenate([_floats(_arrow(rows, column)) for rows in parts])
            deviation = float(values.std())
            self.mean[column], self.std[column] = float(values.mean()), deviation if deviation > 0 else 1.0

    def problems(self, rows: Any) -> dict[int, str]:
        """What is wrong with rows, by position: no number, or no category that there is.

        Raises:
            TrainingError: A column holds no numbers at all, and is not one of categories.
        """
        said: dict[int, str] = {}
        for column in self.columns:
            values = _arrow(rows, column)
            if column in self.categories:
                names = self.categories[column][1]
                for position, name in enumerate(_names(values)):
                    if name is None:
                        said.setdefault(position, f"an empty field in {column!r}, which is an input")
                    elif name not in names:
                        said.setdefault(position, f"{name!r} in {column!r} is none of the categories {listed(names)}")
                continue
            _check_numeric(column, values)
            for position in np.flatnonzero(~np.isfinite(_floats(values))).tolist():
                said.setdefault(position, f"an empty field or no finite number in {column!r}, which is an input")
        return said

    def _coded(self, column: str, values: Sequence[Any]) -> Array:
        """The values of a column as numbers ``(rows, 1)``, or of one-hot categories ``(rows, categories)``."""
        if column in self.categories:
            coding, names = self.categories[column]
            place: dict[str | None, int] = {name: number for number, name in enumerate(names)}
            numbers = np.array([place[_name(value)] for value in values], np.int64)
            if coding == "ordinal":
                return numbers[:, None].astype(np.float64)
            ones = np.zeros((len(numbers), len(names)))
            ones[np.arange(len(numbers)), numbers] = 1
            return ones
        made = np.asarray(values, dtype=np.float64)
        if self.mean is not None and self.std is not None:
            made = (made - self.mean[column]) / self.std[column]
        return made[:, None]


def open_numbers(
    source: Any, name: str, rows: Any, stated: Mapping[str, Any] | None, where: str, *, whole: bool
) -> Numbers:
    """What encodes an input of numbers, as an earlier training did it where there was one.

    Args:
        source: What the recipe says.
        name: The input.
        rows: The rows to take the names of categories from.
        stated: How training did it; nothing where it was not trained.
        where: What the source is called.
        whole: Whether the rows are to be trained on, so that they may say which categories there are.

    Raises:
        TrainingError: A category is of a column that is no input, or nothing says which there are.
    """
    columns = list(source.numbers[name])
    earlier = stated or {}
    categories: dict[str, tuple[Coding, tuple[str, ...]]] = {}
    known = earlier.get("categories", {})
    for column in dict.fromkeys(columns):
        given = source.categories.get(column)
        if given is None and column not in known:
            continue
        if column in known:
            ((coding, names),) = known[column].items()
            _check_same(column, given, coding, names)
        elif isinstance(given, Mapping):
            ((coding, names),) = given.items()
        elif whole:
            coding, names = given, natural({each for each in _names(_arrow(rows, column)) if each is not None})
        else:
            raise TrainingError(
                f"{where}: nothing says which categories {column!r} has, since the network was not trained on them",
                where="train.data.categories",
                hint=f"list them: categories: {{{column}: {{{given}: [A, B]}}}}",
            )
        categories[column] = (coding, tuple(names))
    mean, std = earlier.get("mean"), earlier.get("std")
    scaled = mean is not None if source.scale is None else source.scale
    made = Numbers(name, columns, categories, scaled=scaled)
    if scaled and mean is not None and std is not None:
        if missing := [column for column in made.plain if column not in mean]:
            raise TrainingError(
                f"the network was trained on other columns than {missing[0]!r}: {', '.join(mean)}",
                where="train.data.numbers",
                hint="scale: false takes the numbers as they are",
            )
        made.mean, made.std = dict(mean), dict(std)
    elif scaled and not whole:
        raise TrainingError(
            f"{where}: scale: true, and the network's record has no means of {name!r}", hint="train it with scale: true"
        )
    return made


def fit_together(encoders: Sequence[tuple[Numbers, Any]]) -> None:
    """Standardise an input of several sources alike, by the training rows of all of them.

    Args:
        encoders: What encodes the input in each source, with the source's training rows.

    Raises:
        TrainingError: The sources have other categories.
    """
    first = encoders[0][0]
    for encoder, _ in encoders[1:]:
        for column, (coding, names) in first.categories.items():
            if encoder.categories.get(column) != (coding, names):
                raise TrainingError(
                    f"the sources differ in the categories of {column!r}: {listed(names)}, and "
                    f"{listed(encoder.categories.get(column, ('', ()))[1]) or 'none'}",
                    where="train.data.categories",
                    hint=f"list all of them in each source: categories: {{{column}: {{{coding}: [A, B]}}}}",
                )
    if first.scaled and first.mean is None:
        first.fit([rows for _, rows in encoders])
        for encoder, _ in encoders[1:]:
            encoder.mean, encoder.std = first.mean, first.std


def _check_same(column: str, given: Any, coding: str, names: Sequence[str]) -> None:
    other = given if isinstance(given, str) or given is None else next(iter(given))
    if other not in (None, coding) or (isinstance(given, Mapping) and list(given[other]) != list(names)):
        raise TrainingError(
            f"the network was trained with the categories {listed(names)} of {column!r}, {coding}",
            where="train.data.categories",
            hint="leave them out, and they are as they were",
        )


def _check_numeric(column: str, values: Any) -> None:
    from pyarrow import types

    kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)):
        raise TrainingError(
            f"the column {column!r}, an input, holds {kind} and no numbers",
            where="train.data",
            hint=f"if they are categories: categories: {{{column}: one_hot}}",
        )


def _arrow(rows: Any, column: str) -> Any:
    return rows.select_columns([column]).with_format("arrow")[:][column]


def _floats(values: Any) -> Array:
    return np.asarray(values.to_pandas(), dtype=np.float64)


def _names(values: Any) -> list[str | None]:
    return [_name(value) for value in values.to_pylist()]


def _name(value: Any) -> str | None:
    """A category as a name; None where the field is empty."""
    return None if value is None or value == "" or value != value else str(value)
