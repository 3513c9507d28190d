"""Read label columns of lists: one class per word of a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgeon.data.class_names import Numbering
from surgeon.data.label_columns import Array, LabelColumn, class_tensor, read_labels
from surgeon.data.labels import IGNORED
from surgeon.data.network import Head


@dataclass(frozen=True)
class TagColumn(LabelColumn):
    """The labels of the words of all rows, one after the other; ``rows`` is the row of each word.

    Attributes:
        lengths: ``(rows,)``: the number of words per row.
    """

    lengths: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def take(self, positions: Array) -> TagColumn:
        """Select rows."""
        starts = np.cumsum(self.lengths) - self.lengths
        lengths = self.lengths[positions]
        places = np.repeat(starts[positions] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        words = super().take(places)
        fields = {field.name: getattr(words, field.name) for field in dataclasses.fields(LabelColumn)}
        return TagColumn(**fields, lengths=lengths)

    def strata(self) -> Array | None:
        """Return None: a row has no single class to split by."""
        return None


def is_of_tags(kind: Any) -> bool:
    """Return whether an arrow type is a list of texts or whole numbers."""
    from pyarrow import types

    if not (types.is_list(kind) or types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return bool(types.is_string(inner) or types.is_large_string(inner) or types.is_integer(inner))


def read_tags(
    arrow: Any, name: str, *, feature: Any, text: bool, na: Sequence[Any] | None, rows: Array, where: str
) -> TagColumn:
    """Read a column of lists of labels, with the arguments of :func:`surgeon.data.label_columns.read_labels`.

    Raises:
        TrainingError: A value is not a label.
    """
    import pyarrow.compute as compute

    lengths = np.array(compute.fill_null(compute.list_value_length(arrow), 0).to_numpy(), np.int64)
    flat = compute.list_flatten(arrow)
    inner = getattr(feature, "feature", None)
    words = np.repeat(rows, lengths)
    # in lists of tags, -100 marks a missing label by convention
    labels = read_labels(flat, name, feature=inner, text=text, na=[IGNORED, *(na or ())], rows=words, where=where)
    fields = {field.name: getattr(labels, field.name) for field in dataclasses.fields(LabelColumn)}
    return TagColumn(**fields, lengths=lengths)


def label_tensor(label: str, column: LabelColumn, numbering: Numbering, head: Head) -> Tensor:
    """Convert the labels of a column to a tensor, see :func:`class_tensor`; word labels ``(rows, words)`` with -100.

    Raises:
        TrainingError: A label does not fit its loss; the error names the first such row.
    """
    flat = class_tensor(label, column, numbering, head)
    if not isinstance(column, TagColumn):
        return flat
    targets = torch.full((len(column.lengths), int(column.lengths.max(initial=1))), IGNORED, dtype=torch.int32)
    places = np.arange(targets.shape[1])[None] < column.lengths[:, None]
    targets[torch.from_numpy(places)] = flat.to(targets.dtype)
    return targets
