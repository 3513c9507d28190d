"""Pack predictions and labels of any shape into one row per sample, and unpack them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from surgeon.errors import TrainingError
from surgeon.training.objectives import Target


def pack(prediction: Tensor, label: Tensor) -> Tensor:
    """Return a row per sample: the shape of a prediction, that of a label, whether labels are whole numbers, both."""
    size = len(label)
    shapes = [float(number) for part in (prediction, label) for number in (part.ndim - 1, *part.shape[1:])]
    layout = torch.tensor([*shapes, float(not label.is_floating_point())], device=prediction.device)
    parts = (part.reshape(size, -1).to(prediction.device, torch.float32) for part in (prediction, label))
    return torch.cat([layout.expand(size, -1), *parts], dim=1)


def unpack(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predictions in float32, and the labels, from the rows that :func:`pack` made."""
    layout = [int(number) for number in table[0].nan_to_num()]
    shapes, position = [], 0
    for _ in range(2):
        shapes.append(layout[position + 1 : position + 1 + layout[position]])
        position += 1 + layout[position]
    start = position + 1
    middle = start + prod(shapes[0])
    prediction = table[:, start:middle].reshape(len(table), *shapes[0])
    label = table[:, middle : middle + prod(shapes[1])].reshape(len(table), *shapes[1])
    return prediction, label.long() if layout[position] else label


def refuse_other_sizes(targets: Sequence[Target], before: Sequence[int], now: Sequence[int]) -> None:
    """Refuse predictions and labels that a metric needs whole and whose size differs between batches.

    Raises:
        TrainingError: They do.
    """
    for target, one, other in zip(targets, before, now, strict=False):
        if target.kept and one != other:
            objective = target.objective
            raise TrainingError(
                f"the output {objective.output!r} or its labels {objective.label!r} differ in size between batches, "
                "and a metric needs all of them at once",
                where="train.metrics",
                hint="name another output: {metric: NAME, output: OUTPUT}, or leave the metric out",
            )
