"""Train layers beside the network: they are in checkpoints of the training, and not in its result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from surgeon.training.penalties import Run


class Layers:
    """Hold linear layers with a ReLU between each two, which train with the network.

    Their first values are drawn under the seed of the run as those of ``nn.Linear`` are.

    Shapes: ``(batch, widths[0])`` → ``(batch, widths[-1])``.

    Args:
        run: The training run.
        name: The beginning of their names among what is learnt beside the network.
        widths: The width of the input, of each hidden layer and of the output.
    """

    def __init__(self, run: Run, name: str, widths: Sequence[int]) -> None:
        device = next(run.model.parameters()).device
        draw = torch.Generator().manual_seed(run.seed)
        prefix = next(f"{name}{number}" for number in count() if f"{name}{number}.0.weight" not in run.learnt)
        self.layers = []
        for index, (before, after) in enumerate(pairwise(widths)):
            bound = before**-0.5
            weight = (torch.rand(after, before, generator=draw) * 2 - 1) * bound
            bias = (torch.rand(after, generator=draw) * 2 - 1) * bound
            place = f"{prefix}.{index}"
            self.layers.append(
                (run.learn(f"{place}.weight", weight.to(device)), run.learn(f"{place}.bias", bias.to(device)))
            )

    def __call__(self, features: Tensor) -> Tensor:
        """Compute the output of the last layer."""
        for index, (weight, bias) in enumerate(self.layers):
            features = F.linear(features.relu() if index else features, weight, bias)
        return features


def reversed_gradient(features: Tensor, strength: float) -> Tensor:
    """Return ``features``, whose gradient is multiplied by ``-strength`` (Ganin & Lempitsky 2015)."""
    passed = features.view_as(features)
    if passed.requires_grad:
        passed.register_hook(lambda gradient: -strength * gradient)  # type: ignore[no-untyped-call]
    return passed
