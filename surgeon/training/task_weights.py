"""How the losses of several tasks are weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surgeon.training.losses import mse
from surgeon.training.objectives import Target


class FixedWeights:
    """The weights that the objectives say."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.weights = [target.objective.weight for target in targets]
        self.parameters: list[nn.Parameter] = []

    def weigh(self, position: int, loss: Tensor, labelled: Tensor) -> Tensor:
        """The part of the objective at ``position`` in the sum; ``labelled`` tells whether any sample has a label."""
        return self.weights[position] * loss

    def numbers(self) -> dict[int, float]:
        """What is worth logging: nothing, as nothing changes."""
        return {}


class UncertaintyWeights(FixedWeights):
    """Task weights learnt as homoscedastic uncertainties (Kendall, Gal & Cipolla 2018, eq. 7, 10 and section 3.2).

    A task adds ``exp(-s) · loss + s / 2`` with s = log σ² learnt from 0, and half of ``exp(-s) · loss`` for a
    squared error, whose likelihood is Gaussian. An objective's own weight scales its whole term; one of weight 0
    has none. A batch without a label of a task leaves its s alone.
    """

    def __init__(self, targets: Sequence[Target], device: torch.device) -> None:
        super().__init__(targets)
        self.factors = [0.5 if target.loss is mse else 1.0 for target in targets]
        self.log_variances = nn.Parameter(torch.zeros(len(targets), device=device))
        self.parameters = [self.log_variances]

    def weigh(self, position: int, loss: Tensor, labelled: Tensor) -> Tensor:
        """See :class:`UncertaintyWeights`."""
        s = self.log_variances[position]
        term = self.factors[position] * torch.exp(-s) * loss + s / 2 * labelled
        return self.weights[position] * term

    def numbers(self) -> dict[int, float]:
        """The factor of each task's loss by now, without the objective's own weight."""
        values = torch.exp(-self.log_variances.detach()).tolist()
        return {
            position: factor * value
            for position, (factor, value, weight) in enumerate(zip(self.factors, values, self.weights, strict=True))
            if weight
        }
