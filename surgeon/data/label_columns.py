"""Turn label columns of tables into tensors: missing labels, names, numbers, and invalid values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgeon.data.class_names import Kind, Levels, Numbering, natural
from surgeon.data.files import more_rows
from surgeon.data.labels import IGNORED
from surgeon.data.network import CLASS_LOSS, NUMBER_LOSSES, Head
from surgeon.errors import TrainingError

Array = np.ndarray[Any, Any]
NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
PADDED = re.compile(r"0\d+")
TRUTH = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}
NOT_A_NUMBER = ("nan", "NaN", "NAN")
EXACT = 2**53
"""Up to here float64 holds all whole numbers."""
LARGEST = float(np.finfo(np.float32).max)
MARKS = (-1.0, -100.0)
"""Numbers that often mark a missing label."""


@dataclass(frozen=True)
class LabelColumn:
    """The values of a label column.

    Attributes:
        name: The column.
        kind: The kind of values.
        missing: ``(rows,)``: True for rows without a label.
        codes: ``(rows,)``: for texts, the index into ``names``; else empty.
        names: For texts, the distinct values.
        values: ``(rows, …)`` numbers, NaN if missing; empty for texts.
        rows: ``(rows,)``: the row numbers in the source, for messages.
        where: The name of the source in messages.
        declared: Whether the user declared what marks a missing label.
    """

    name: str
    kind: Kind
    missing: Array
    codes: Array
    names: tuple[str, ...]
    values: Array
    rows: Array
    where: str
    declared: bool

    def take(self, positions: Array) -> LabelColumn:
        """Select rows."""
        codes = self.codes[positions] if self.kind == "text" else self.codes
        values = self.values if self.kind == "text" else self.values[positions]
        fields = (self.missing[positions], codes, self.names, values, self.rows[positions])
        return LabelColumn(self.name, self.kind, *fields, self.where, self.declared)

    def levels(self, *, trained: bool) -> Levels:
        """Return the distinct values as names."""
        names: tuple[str, ...] = self.names
        if self.kind == "bool":
            names = ("False", "True")
        elif self.kind == "whole":
            names = tuple(str(int(value)) for value in np.unique(self.values[~self.missing]))
        return Levels(self.kind, names if self.kind not in ("real", "list") else (), trained, self.where)

    def strata(self) -> Array | None:
        """Return the class of each row for stratified splits, -1 if missing; None if values are not classes."""
        if self.kind == "text":
            return self.codes
        if self.kind in ("bool", "whole"):
            return np.where(self.missing, -1, np.nan_to_num(self.values)).astype(np.int64)
        return None

    def problem(self, bad: Array, message: str, hint: str | None = None) -> TrainingError:
        """Return the error for the first of the ``bad`` rows."""
        first = int(np.flatnonzero(bad)[0])
        value = self.names[self.codes[first]] if self.kind == "text" else _as_text(self.values[first])
        rest = more_rows(int(bad.sum()) - 1)
        return TrainingError(
            f"{self.where}, row {int(self.rows[first])}: {self.name!r} is {value}{rest}; {message}",
            where="train.data",
            hint=hint,
        )


def read_labels(
    arrow: Any,
    name: str,
    *,
    feature: Any,
    text: bool,
    na: Sequence[Any] | None,
    rows: Array,
    where: str,
    loss: str | None = None,
) -> LabelColumn:
    """Read a column.

    Args:
        arrow: Its values, a ``pyarrow.ChunkedArray``.
        name: Its name.
        feature: Its type in ``datasets``.
        text: Whether the file has only text, like CSV, so that numerals are numbers.
        na: Further marks of missing labels; None if the user declares none.
        rows: The number of each row.
        where: The name of the source in messages.
        loss: The loss that the labels are for; None if unknown. Numerals that would change as numbers ("1E5", a whole
            number beyond 2⁵³) are names, unless the loss compares numbers.

    Raises:
        TrainingError: A value is not a label.
    """
    import pyarrow
    import pyarrow.compute as compute
    from pyarrow import types

    marks = {str(mark) for mark in na or ()}
    numbers = [float(mark) for mark in na or () if NUMERAL.fullmatch(str(mark))]
    no_codes = np.zeros(0, np.int64)

    def column(kind: Kind, missing: Array, codes: Array, names: Sequence[str], values: Array) -> LabelColumn:
        return LabelColumn(name, kind, missing, codes, tuple(names), values, rows, where, na is not None)

    def of_numbers(values: Array) -> LabelColumn:
        values = values.astype(np.float64)
        values[np.isin(values, numbers)] = np.nan
        missing = np.isnan(values)
        integral = bool(np.equal(values[~missing], np.round(values[~missing])).all())
        labels = column("whole" if integral else "real", missing, no_codes, (), values)
        endless: Array = np.abs(values) > LARGEST
        if endless.any():
            raise labels.problem(endless, "labels must be finite in float32")
        return labels

    def of_texts(words: list[str], gone: Sequence[bool], places: Array, missing: Array) -> LabelColumn:
        names = natural(word for word, left_out in zip(words, gone, strict=True) if not left_out)
        place = {word: number for number, word in enumerate(names)}
        codes = np.array([*(place.get(word, -1) for word in words), -1], np.int64)[places]
        return column("text", missing, codes, names, no_codes)

    def of_bools(values: Array, missing: Array) -> LabelColumn:
        filled = np.where(missing, np.nan, values.astype(np.float64))
        return column("bool", missing, no_codes, (), filled)

    kind = arrow.type
    if types.is_dictionary(kind):
        arrow = compute.cast(arrow, kind.value_type)
        kind = arrow.type
    if str(kind) == "string_view":
        arrow = compute.cast(arrow, pyarrow.large_string())
        kind = arrow.type
    if (
        types.is_integer(kind)
        and getattr(feature, "names", None) is None
        and loss not in NUMBER_LOSSES
        and _beyond(arrow)
    ):
        arrow = compute.cast(arrow, pyarrow.string())
        kind = arrow.type
    class_names = getattr(feature, "names", None)
    if class_names is not None and types.is_integer(kind):
        codes = np.array(compute.fill_null(arrow, -(10**6)).to_numpy(), np.int64)
        missing = (codes == -(10**6)) | np.isin(codes, numbers)
        missing |= np.isin(codes, [place for place, name in enumerate(class_names) if name in marks])
        out = ~missing & ((codes < 0) | (codes >= len(class_names)))
        if out.any():
            as_numbers = column("whole", missing, no_codes, (), codes.astype(np.float64))
            raise as_numbers.problem(out, f"there are {len(class_names)} classes", _mark_hint(as_numbers.values[out]))
        return column("text", missing, np.where(missing, -1, codes), class_names, no_codes)
    if types.is_boolean(kind):
        missing = compute.is_null(arrow).to_numpy()
        return of_bools(compute.fill_null(arrow, False).to_numpy(), missing)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        cast = compute.cast(arrow, pyarrow.float64(), safe=False)
        return of_numbers(np.array(compute.fill_null(cast, float("nan")).to_numpy()))
    if types.is_null(kind):
        return column("whole", np.ones(len(arrow), bool), no_codes, (), np.full(len(arrow), np.nan))
    if types.is_string(kind) or types.is_large_string(kind):
        encoded = arrow.combine_chunks().dictionary_encode()
        if isinstance(encoded, pyarrow.ChunkedArray):
            encoded = encoded.combine_chunks()
        words = encoded.dictionary.to_pylist()
        places = np.array(compute.fill_null(encoded.indices, len(words)).to_numpy(), np.int64)
        dropped = {"", *(NOT_A_NUMBER if text else ()), *marks}
        dropped_words = [word in dropped or (bool(numbers) and _is(word, numbers)) for word in words]
        missing = np.array([*dropped_words, True])[places]
        labels = [word for word, left_out in zip(words, dropped_words, strict=True) if not left_out]
        if text and labels and all(word in TRUTH for word in labels):
            return of_bools(np.array([*(TRUTH.get(word, False) for word in words), False])[places], missing)
        numeral = all(NUMERAL.fullmatch(word.strip()) and not _changes(word, loss) for word in labels)
        if text and numeral and not any(PADDED.fullmatch(word) for word in labels):
            numeric = [np.nan if left_out else float(word) for word, left_out in zip(words, dropped_words, strict=True)]
            return of_numbers(np.array([*numeric, np.nan])[places])
        return of_texts(words, dropped_words, places, missing)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        values = _lists(arrow.to_pylist(), name, where, rows)
        values[np.isin(values, numbers)] = np.nan
        if (large := _of_rows(np.abs(values) > LARGEST)).any():
            raise column("list", large, no_codes, (), values).problem(large, "labels must be finite in float32")
        empty: Array = np.asarray(np.isnan(values).reshape(len(values), -1).all(1))
        return column("list", empty, no_codes, (), values)
    mixed = "arrow.json" in str(kind)
    raise TrainingError(
        f"{where}: {name!r} holds values of several types"
        if mixed
        else f"{where}: {name!r} has type {kind}, which cannot be labels",
        where="train.data",
        hint="classes are texts or whole numbers; a CSV file keeps dates as texts",
    )


def _beyond(arrow: Any) -> bool:
    """Return whether whole numbers are too large to be exact as floats."""
    import pyarrow.compute as compute

    ends = compute.min_max(arrow).as_py()
    return any(end is not None and abs(end) >= EXACT for end in ends.values())


def _changes(word: str, loss: str | None) -> bool:
    """Return whether a numeral that is a class would be another name as a number."""
    if loss in NUMBER_LOSSES:
        return False
    if "e" in word.lower():
        return loss == CLASS_LOSS
    return "." not in word and abs(float(word)) >= EXACT


def class_tensor(label: str, column: LabelColumn, numbering: Numbering, head: Head) -> Tensor:
    """Convert the labels of a column to a tensor ``(rows, …)``: integers for classes, floats for values.

    Raises:
        TrainingError: A label does not fit its loss; the error names the first such row.
    """
    if column.kind == "text" or (numbering.by_name and head.loss in (CLASS_LOSS, None)):
        return _by_name(label, column, numbering, head)
    values, missing = column.values, np.isnan(column.values)
    if head.loss in NUMBER_LOSSES or (column.kind in ("real", "list") and head.loss != CLASS_LOSS):
        check_values(column, head)
        return torch.from_numpy(values).float()
    if head.loss == CLASS_LOSS:
        fractional = ~missing & (values != np.round(np.nan_to_num(values)))
        if fractional.any():
            raise column.problem(
                _of_rows(fractional), "cross_entropy needs whole numbers", "for values: problem_type: regression"
            )
    low = ~missing & (values < 0)
    high = ~missing & (values >= (head.count if head.count is not None else np.inf))
    if head.loss == CLASS_LOSS and (low | high).any():
        count = "" if head.count is None else f", up to {head.count - 1} for this head"
        raise column.problem(_of_rows(low | high), f"classes are numbered from 0{count}", _mark_hint(values[low]))
    if low.any():  # the loss is unknown: treat them as values
        check_values(column, head)
        return torch.from_numpy(values).float()
    return torch.from_numpy(np.where(missing, IGNORED, np.nan_to_num(values)).astype(np.int64))


def check_values(column: LabelColumn, head: Head) -> None:
    """Refuse numbers that the loss cannot use, and undeclared marks of missing labels.

    Raises:
        TrainingError: A number is refused; the error names the first such row.
    """
    values = column.values
    if column.kind == "text":
        raise column.problem(~column.missing, "numbers are needed here")
    if not column.declared and (marked := values == MARKS[1]).any():
        raise column.problem(
            _of_rows(marked),
            "it may mark a missing label",
            "set na: [-100] if it does, na: [] if it is a value",
        )
    if head.loss == "bce" and (outside := (values < 0) | (values > 1)).any():
        raise column.problem(_of_rows(outside), "bce needs labels from 0 to 1", _mark_hint(values[outside]))


def _by_name(label: str, column: LabelColumn, numbering: Numbering, head: Head) -> Tensor:
    if column.kind == "text":
        names, codes = column.names, column.codes
    else:
        distinct, codes = np.unique(column.values[~column.missing], return_inverse=True)
        truth = column.kind == "bool"
        names = tuple(str(bool(value)) if truth else str(int(value)) for value in distinct)
        every_code = np.full(len(column.missing), -1)
        every_code[~column.missing] = codes
        codes = every_code
    used = np.unique(codes[codes >= 0])
    numbers = np.full(len(names) + 1, IGNORED)  # the last is for -1, which is missing
    numbers[used] = numbering.positions([names[place] for place in used], label, column.where)
    targets = torch.from_numpy(numbers[codes].astype(np.int64))
    if head.loss in NUMBER_LOSSES:
        return targets.float().masked_fill(torch.from_numpy(column.missing), torch.nan)
    return targets


def _lists(values: list[Any], name: str, where: str, rows: Array) -> Array:
    """Convert lists of numbers to one array; missing ones become NaN."""
    first: Any = next((value for value in values if value is not None), [])
    try:
        shape = np.asarray(first, np.float64).shape
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"{where}: the lists in {name!r} contain non-numbers, or differ in length within a row",
            where="train.data",
        ) from error
    array = np.full((len(values), *shape), np.nan)
    for position, value in enumerate(values):
        if value is None:
            continue
        try:
            array[position] = _exactly(np.asarray(value, np.float64), shape)
        except (TypeError, ValueError) as error:
            raise TrainingError(
                f"{where}, row {int(rows[position])}: {name!r} is a list of another shape than in row "
                f"{int(rows[values.index(first)])} ({shape}), or contains non-numbers",
                where="train.data",
            ) from error
    return array


def _exactly(value: Array, shape: tuple[int, ...]) -> Array:
    if value.shape != shape:  # a shorter list would be broadcast
        raise ValueError
    return value


def _of_rows(bad: Array) -> Array:
    return np.asarray(bad.reshape(len(bad), -1).any(1))


def _is(word: str, numbers: list[float]) -> bool:
    return NUMERAL.fullmatch(word.strip()) is not None and float(word) in numbers


def _mark_hint(values: Array) -> str | None:
    marks = [int(mark) for mark in MARKS if (values == mark).any()]
    return f"if it marks a missing label, declare it: na: {marks}" if marks else None


def _as_text(value: Any) -> str:
    return f"{value:g}" if np.ndim(value) == 0 else f"[{', '.join(f'{number:g}' for number in np.ravel(value)[:8])}]"
