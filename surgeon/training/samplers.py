"""Samplers that draw rare classes, or small domains, as often as others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Sampler, WeightedRandomSampler

from surgeon.data.combine import DOMAIN
from surgeon.data.labels import IGNORED
from surgeon.errors import TrainingError
from surgeon.training.column_values import column_of
from surgeon.training.objectives import Target


class EpochSampler(WeightedRandomSampler):
    """Draw samples with replacement by their weights; the draws depend only on the seed and the epoch.

    A resumed run, and each of several processes, therefore draws the same.
    """

    def __init__(self, weights: Tensor, seed: int) -> None:
        super().__init__(weights.tolist(), len(weights), replacement=True)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the draws of this epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Draw the samples of one epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return super().__iter__()


def make_sampler(
    kind: Literal["balanced", "domains"], dataset: Any, targets: Sequence[Target], seed: int
) -> Sampler[int]:
    """Make a sampler of one epoch's length that draws each class (or domain) equally often.

    Samples without a label are drawn in proportion to their number.

    Raises:
        TrainingError: The data have no classes, or no domains.
    """
    if kind == "domains":
        if DOMAIN not in dataset[0]:
            raise TrainingError(
                "sampling: domains needs domains, and the data have none",
                where="train.sampling",
                hint="give every source its domain: data: [{…, domain: photos}, {…, domain: sketches}]",
            )
        groups = column_of(dataset, DOMAIN)
    else:
        names = [t.objective.label for t in targets if t.of_classes and t.objective.label != DOMAIN]
        groups = column_of(dataset, names[0]) if names else torch.zeros(0, 0)
    if groups.ndim != 1 or groups.is_floating_point():
        raise TrainingError(
            "sampling: balanced needs one class per sample, and no objective has such labels",
            where="train.sampling",
            hint="use class_weights, or sampling: uniform",
        )
    present = groups != IGNORED
    values, group, counts = torch.unique(groups[present], return_inverse=True, return_counts=True)
    weights = torch.ones(len(groups), dtype=torch.float64)
    weights[present] = int(present.sum()) / (len(values) * counts[group].double())
    return EpochSampler(weights, seed)
