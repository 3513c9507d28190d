"""Hold the samples of one training run in three parts, with the facts that training needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset


def collate_samples(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stack ``samples`` into a batch, as torch's ``default_collate`` does."""
    from torch.utils.data import default_collate

    return dict(default_collate(samples))


@dataclass(frozen=True)
class Splits:
    """Hold the data of a training run, and the facts about it that the training loop needs.

    A dataset may define ``label_values(name)``, which returns all labels of a column as one tensor. Then labels are
    checked, and samples held out by class, without reading every sample.
    """

    train: Dataset[Any]
    """Samples as mappings of column names to tensors."""
    test: Dataset[Any]
    """Held-out samples with the same columns, for the reported metrics."""
    inputs: tuple[str, ...] = ("pixel_values",)
    """The columns that the model is called with; every other column is a label."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """The number of classes by label column, if it is known; checked against the model's outputs."""
    domains: tuple[str, ...] = ()
    """The names of the domains that the column ``domain`` counts, if there is one."""
    collate: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]] = collate_samples
    """Makes a batch of samples."""
    validation: Dataset[Any] | None = None
    """Held-out samples for choices (early stopping, best weights, learning rates). If None, some are held out of
    ``train`` when something needs them."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the classes, or of the yes/no questions, by label column: number 0 is the first."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """How pictures, sounds and texts become inputs, as plain values; see :mod:`surgeon.interfaces.preprocessing`."""
    notes: tuple[str, ...] = ()
    """Lines to show about what was read and what was left out."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """How the parts were made, for the record: ``rule``, ``seed``, and ``held_out``, a digest of the held-out samples
    by part. Counts are added when training begins."""
