"""Read all values of one column of a dataset: for class weights, balanced samplers and digests of data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgeon.data.labels import present
from surgeon.data.rows import label_values
from surgeon.errors import TrainingError

PROBED = 32
"""How many samples of a dataset are read completely for its digest."""


def column_of(dataset: Any, name: str) -> Tensor:
    """Return the column ``name`` of every sample, without reading pictures and sounds if possible.

    Raises:
        TrainingError: Samples lack the column, or differ in its shape.
    """
    if (column := _whole(dataset, name)) is not None:
        return column
    values = [_value(dataset, index, name) for index in range(len(dataset))]
    if len({tuple(value.shape) for value in values}) > 1:
        raise TrainingError(f"the labels {name!r} differ in shape from sample to sample")
    return torch.stack(values)


def classes_counted(dataset: Any, name: str, classes: int) -> Tensor:
    """Count how often each class is a label, ``(classes,)``; also for tokens and pixels."""
    column = _whole(dataset, name)
    parts = [_value(dataset, index, name) for index in range(len(dataset))] if column is None else [column]
    total = torch.zeros(classes, dtype=torch.long)
    for part in parts:
        labels = part[present(part)].reshape(-1).long()
        if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            invalid = int(labels[(labels < 0) | (labels >= classes)][0])
            raise TrainingError(f"the label {invalid} in {name!r} is not one of {classes} classes (0 to {classes - 1})")
        total += torch.bincount(labels, minlength=classes)
    return total


def digest_of(dataset: Any, inputs: tuple[str, ...]) -> dict[str, Any]:
    """Compute a digest of a dataset: its size, all labels, and some samples completely."""
    size = len(dataset)
    first = dataset[0] if size else {}
    digest = hashlib.sha256()
    names = [name for name in sorted(first) if name not in inputs]
    labels = {name: hashlib.sha256() for name in names}
    names = [name for name in names if torch.as_tensor(first[name]).ndim < 2 or _whole(dataset, name) is not None]
    for name in names:
        column = _whole(dataset, name)
        for index in range(size):
            _add(labels[name], _value(dataset, index, name) if column is None else column[index])
    for index in np.linspace(0, size - 1, min(PROBED, size), dtype=int).tolist():
        for name, value in sorted(dataset[index].items()):
            if name not in names and not _varies(dataset):  # inputs, and labels of pixels
                digest.update(name.encode())
                _add(digest, value)
    label_digests = {name: value.hexdigest()[:16] for name, value in labels.items()}
    return {"samples": size, "labels": label_digests, "inputs": digest.hexdigest()[:16]}


def _whole(dataset: Any, name: str) -> Tensor | None:
    """Return the column of a dataset that has ``label_values(name)`` or is in memory; None otherwise."""
    if (values := label_values(dataset, name)) is not None:
        return values
    if isinstance(columns := getattr(dataset, "columns", None), Mapping) and name in columns:
        return torch.as_tensor(columns[name])
    return None


def _value(dataset: Any, index: int, name: str) -> Tensor:
    rows, encoders = getattr(dataset, "rows", None), getattr(dataset, "encoders", ())
    for encode in encoders if rows is not None else ():
        column = getattr(encode, "column", None)
        if getattr(encode, "target", None) == name and isinstance(column, str) and hasattr(rows, "select_columns"):
            return torch.as_tensor(encode(_narrow(dataset, rows, column)[index], index, False)[name])
    sample = dataset[index]
    if name not in sample:
        raise TrainingError(f"samples have no column {name!r} (available: {', '.join(sample)})")
    return torch.as_tensor(sample[name])


def _narrow(dataset: Any, rows: Any, column: str) -> Any:
    """Return the rows with one column only, cached per dataset."""
    columns: dict[str, Any] = dataset.__dict__.setdefault("_narrow_rows", {})
    if column not in columns:
        columns[column] = rows.select_columns([column])
    return columns[column]


def _varies(dataset: Any) -> bool:
    parts = [member.samples for member in getattr(dataset, "members", ())]
    encoders = getattr(dataset, "encoders", ())
    return any(getattr(encode, "varies", False) for encode in encoders) or any(map(_varies, parts))


def _add(digest: Any, value: Any) -> None:
    tensor = torch.as_tensor(value).detach().cpu().contiguous()
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
