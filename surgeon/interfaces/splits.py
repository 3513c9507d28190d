"""Hold the samples of one training run in three parts, with what has to be known of them."""

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
    """What the training loop needs to know of its data.

    A dataset may say more of itself: ``label_values(name)`` returns all labels of a column as one tensor, so that they
    are checked, and samples held out by class, without reading every sample.
    """

    train: Dataset[Any]
    """Samples as mappings of column names to tensors."""
    test: Dataset[Any]
    """Held-out samples with the same columns, for the figures that are reported."""
    inputs: tuple[str, ...] = ("pixel_values",)
    """The columns that the model is called with; every other column is a label."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """The number of classes by label column, where it is known; checked against the model's outputs."""
    domains: tuple[str, ...] = ()
    """The names of the domains that the column ``domain`` counts, if there is one."""
    collate: Callable[[list[dict[str, Tensor]]], dict[str, Tensor]] = collate_samples
    """Makes a batch of samples."""
    validation: Dataset[Any] | None = None
    """Held-out samples that choices are made by (early stopping, best weights, learning rates); None where the data
    name none, and then some are held out of ``train`` when something needs them."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the classes, or of the questions, by label column: number 0 is the first."""
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    """How pictures, sounds and texts become inputs, as plain values; see :mod:`surgeon.interfaces.preprocessing`."""
    notes: tuple[str, ...] = ()
    """What was read and what was left out, a line each, to be shown."""
    split: Mapping[str, Any] = field(default_factory=dict)
    """How the parts came about, for the record: ``rule``, ``seed``, and ``held_out``, a digest of what is not trained
    on, by part. Counts are added when training begins."""
