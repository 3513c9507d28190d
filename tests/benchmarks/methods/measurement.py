"""What the report of a training does not say of a network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from surgeon.interfaces.splits import Splits
from surgeon.training.objectives import call_of

BATCH = 128


def accuracy_on(model: nn.Module, splits: Splits, label: str = "labels") -> float:
    """The percentage of test samples whose class ``model`` scores highest."""
    call = call_of(model, splits.inputs)
    right = 0
    with torch.no_grad():
        for batch in _batches(splits, splits.test):
            right += int((call(model, batch)["logits"].argmax(1) == batch[label]).sum())
    return 100 * right / len(splits.test)  # type: ignore[arg-type]


def with_statistics_of(model: nn.Module, splits: Splits) -> nn.Module:
    """A copy of ``model`` whose batch norms have the mean and variance of the training samples; no label is used."""
    adapted = copy.deepcopy(model)
    for module in adapted.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over the batches
            module.train()
    call = call_of(adapted, splits.inputs)
    with torch.no_grad():
        for batch in _batches(splits, splits.train):
            call(adapted, batch)
    return adapted.eval()


def _batches(splits: Splits, samples: torch.utils.data.Dataset[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    count = len(samples)  # type: ignore[arg-type]
    # shuffled, since sources list one class after the other, and a batch's statistics should be those of all
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [order[start : start + BATCH] for start in range(0, count, BATCH)]
    return [splits.collate([samples[row] for row in some]) for some in rows]
