"""Encode columns of numbers in a table: unchanged, standardised, or as named categories."""

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
EXACT = 2**24
"""Up to here float32 holds all whole numbers."""


@dataclass
class Numbers:
    """Encode several columns as one input, ``(values,)`` per row, in the order of the columns.

    A category is ``one_hot``, one value per name, or ``ordinal``, the index of its name in the list.

    Attributes:
        name: The input.
        columns: The columns.
        categories: How categorical columns are coded, with their names in order.
        mean: The value to subtract from each numeric column; None if they are not standardised.
        std: The value to divide each by.
        scaled: Whether to standardise numeric columns.
    """

    name: str
    columns: list[str]
    categories: dict[str, tuple[Coding, tuple[str, ...]]] = field(default_factory=dict)
    mean: dict[str, float] | None = None
    std: dict[str, float] | None = None
    scaled: bool = False

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode a row."""
        return {self.name: self.batch({column: [row[column]] for column in self.columns})[0]}

    def batch(self, columns: Mapping[str, Any]) -> Tensor:
        """Encode several rows, ``(rows, values)``."""
        values = np.concatenate([self._coded(name, columns[name]) for name in self.columns], axis=1)
        return torch.from_numpy(values).float()

    @property
    def plain(self) -> list[str]:
        """The numeric columns, without categorical ones."""
        return [column for column in dict.fromkeys(self.columns) if column not in self.categories]

    @property
    def used(self) -> dict[str, Any]:
        """The encoding as plain values; empty if the columns are used unchanged."""
        settings: dict[str, Any] = {}
        if self.categories:
            settings["categories"] = {name: {coding: list(names)} for name, (coding, names) in self.categories.items()}
        if self.mean is not None and self.std is not None:
            settings |= {"mean": self.mean, "std": self.std}
        return settings

    def fit(self, parts: Sequence[Any]) -> None:
        """Compute mean and deviation of the columns over the training rows, one part of each source.

        The deviation of a constant column, which may be rounding (0.1 gives 1e-17), is 1 by scikit-learn's rule.
        """
        from sklearn.preprocessing import StandardScaler

        self.mean, self.std = {}, {}
        for column in self.plain:
            values = np.concatenate([_floats(part.arrow([column])[column]) for part in parts])
            scaler = StandardScaler().fit(values[:, None])
            self.mean[column], self.std[column] = float(scaler.mean_[0]), float(scaler.scale_[0])

    def problems(self, rows: Any) -> dict[int, str]:
        """Return what is wrong with rows, by position: a missing number or an unknown category.

        Raises:
            TrainingError: A column has no numbers at all, and is not declared as categorical.
        """
        problems: dict[int, str] = {}
        for column in self.columns:
            values = _arrow(rows, column)
            if column in self.categories:
                names = self.categories[column][1]
                for position, name in enumerate(_names(values, names)):
                    if name is None:
                        problems.setdefault(position, f"an empty field in {column!r}, which is an input")
                    elif name not in names:
                        problems.setdefault(
                            position, f"{name!r} in {column!r} is not one of the categories {listed(names)}"
                        )
                continue
            _check_numeric(column, values)
            floats = _floats(values)
            text = f"an empty field or a non-finite number in {column!r}, which is an input"
            for position in np.flatnonzero(~np.isfinite(floats)).tolist():
                problems.setdefault(position, text)
            if not self.scaled:
                text = f"a number in {column!r} is too large for float32 (use scale: true)"
                for position in np.flatnonzero(np.abs(floats) > np.finfo(np.float32).max).tolist():
                    problems.setdefault(position, text)
        return problems

    def notes(self, rows: Any, where: str) -> list[str]:
        """Return a note for each column whose whole numbers float32 rounds, as it does times in milliseconds."""
        if self.scaled:
            return []
        lines = []
        for column in self.plain:
            floats = _floats(_arrow(rows, column))
            if not len(floats) or np.abs(floats).max() <= EXACT:
                continue
            narrow = len(np.unique(floats.astype(np.float32)))
            if narrow < (count := len(np.unique(floats))):
                lines.append(f"{where}: of {count} numbers in {column!r} float32 tells {narrow} apart; use scale: true")
        return lines

    def _coded(self, column: str, values: Sequence[Any]) -> Array:
        """Return the values of a column as numbers ``(rows, 1)``, or as one-hot categories ``(rows, categories)``."""
        if column in self.categories:
            coding, names = self.categories[column]
            place: dict[str | None, int] = {name: number for number, name in enumerate(names)}
            numbers = np.array([place[_name(value, names)] for value in values], np.int64)
            if coding == "ordinal":
                return numbers[:, None].astype(np.float64)
            ones = np.zeros((len(numbers), len(names)))
            ones[np.arange(len(numbers)), numbers] = 1
            return ones
        scaled = np.asarray(values, dtype=np.float64)
        if self.mean is not None and self.std is not None:
            scaled = (scaled - self.mean[column]) / self.std[column]
        return scaled[:, None]


def open_numbers(
    source: Any, name: str, rows: Any, stated: Mapping[str, Any] | None, where: str, *, whole: bool
) -> Numbers:
    """Return the encoder of a numeric input, with the encoding of an earlier training if there was one.

    Args:
        source: The source in the recipe.
        name: The input.
        rows: The rows to take category names from.
        stated: The encoding of the earlier training; None without one.
        where: The name of the source in messages.
        whole: Whether the rows are training rows, which determine the categories.

    Raises:
        TrainingError: A category is of a column that is not an input, or its names are unknown.
    """
    columns = list(source.numbers[name])
    earlier = stated or {}
    categories: dict[str, tuple[Coding, tuple[str, ...]]] = {}
    recorded = earlier.get("categories", {})
    for column in dict.fromkeys(columns):
        setting = source.categories.get(column)
        if setting is None and column not in recorded:
            continue
        if column in recorded:
            ((coding, names),) = recorded[column].items()
            _check_same(column, setting, coding, names)
        elif isinstance(setting, Mapping):
            ((coding, names),) = setting.items()
        elif whole:
            coding, names = setting, natural({name for name in _names(_arrow(rows, column)) if name is not None})
        else:
            raise TrainingError(
                f"{where}: the categories of {column!r} are unknown, since the network was not trained on them",
                where="train.data.categories",
                hint=f"list them: categories: {{{column}: {{{setting}: [A, B]}}}}",
            )
        categories[column] = (coding, tuple(names))
    mean, std = earlier.get("mean"), earlier.get("std")
    scaled = mean is not None if source.scale is None else source.scale
    encoder = Numbers(name, columns, categories, scaled=scaled)
    if scaled and mean is not None and std is not None:
        if missing := [column for column in encoder.plain if column not in mean]:
            raise TrainingError(
                f"the network was trained on other columns than {missing[0]!r}: {', '.join(mean)}",
                where="train.data.numbers",
                hint="use scale: false for unscaled numbers",
            )
        encoder.mean, encoder.std = dict(mean), dict(std)
    elif scaled and not whole:
        raise TrainingError(
            f"{where}: scale: true, but the network's record has no means of {name!r}", hint="train it with scale: true"
        )
    return encoder


def fit_together(encoders: Sequence[tuple[Numbers, Any]]) -> None:
    """Standardise an input of several sources with the statistics of all their training rows.

    Args:
        encoders: The input's encoder for each source, with the source's training rows.

    Raises:
        TrainingError: The sources have different categories.
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


def _check_same(column: str, setting: Any, coding: str, names: Sequence[str]) -> None:
    declared = setting if isinstance(setting, str) or setting is None else next(iter(setting))
    if declared not in (None, coding) or (isinstance(setting, Mapping) and list(setting[declared]) != list(names)):
        raise TrainingError(
            f"the network was trained with the categories {listed(names)} of {column!r}, {coding}",
            where="train.data.categories",
            hint="leave them out to use the recorded ones",
        )


def _check_numeric(column: str, values: Any) -> None:
    from pyarrow import types

    kind = values.type
    numeric = (types.is_integer, types.is_floating, types.is_boolean, types.is_null, types.is_decimal)
    if any(is_kind(kind) for is_kind in numeric):
        return
    hint = f"if they are categories: categories: {{{column}: one_hot}}"
    if types.is_temporal(kind):
        hint = "write times as numbers, for example as seconds or days"
    elif types.is_nested(kind):
        hint = "give each number a column of its own"
    raise TrainingError(f"the column {column!r}, an input, has type {kind}, not numbers", where="train.data", hint=hint)


def _arrow(rows: Any, column: str) -> Any:
    return rows.select_columns([column]).with_format("arrow")[:][column]


def _floats(values: Any) -> Array:
    return np.asarray(values.to_pandas(), dtype=np.float64)


def _names(values: Any, categories: Sequence[str] = ()) -> list[str | None]:
    return [_name(value, categories) for value in values.to_pylist()]


def _name(value: Any, categories: Sequence[str] = ()) -> str | None:
    """Return a category as a name, as ``categories`` writes it; None for an empty field.

    A column of whole numbers becomes one of floats where a field is empty, so that 2 and 2.0 are one name.
    """
    if value is None or value == "" or value != value:
        return None
    name = str(value)
    if name not in categories and isinstance(value, (int, float)) and float(value).is_integer():
        return next((other for other in (str(int(value)), f"{int(value)}.0") if other in categories), name)
    return name
