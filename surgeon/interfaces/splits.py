"""Hold the samples of one training run: training and test split, inputs, classes, domains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate


@dataclass(frozen=True)
class Splits:
    """What the training loop needs to know of its data."""

    train: Dataset[Any]
    """Samples as mappings of column names to tensors."""
    test: Dataset[Any]
    """Held-out samples with the same columns."""
    inputs: tuple[str, ...] = ("pixel_values",)
    """The columns that the model is called with; every other column is a label."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """The number of classes by label column, where it is known; checked against the model's outputs."""
    domains: tuple[str, ...] = ()
    """The names of the domains that the column ``domain`` counts, if there is one."""
    collate: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]] = default_collate
    """Makes a batch of samples."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """How pictures, sounds and texts become inputs, as plain values; see :mod:`surgeon.interfaces.preprocessing`."""
