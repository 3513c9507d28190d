"""Weight the losses of several tasks in their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from surgeon.training.losses import mse
from surgeon.training.objectives import Target


class FixedWeights:
    """Use the weights of the objectives."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self.weights = [target.objective.weight for target in targets]
        self.parameters: list[nn.Parameter] = []

    def weigh(self, position: int, loss: Tensor, labelled: Tensor) -> Tensor:
        """Weight the loss of the objective at ``position``; ``labelled`` is whether any sample has a label."""
        return self.weights[position] * loss

    def numbers(self) -> dict[int, float]:
        """Get the weights to log: none, because they do not change."""
        return {}


class UncertaintyWeights(FixedWeights):
    """Learn task weights as homoscedastic uncertainties (Kendall, Gal & Cipolla 2018, eq. 7, 10 and section 3.2).

    A task adds ``exp(-s) · loss + s / 2``, where s = log σ² is learnt and starts at 0; a squared error, whose
    likelihood is Gaussian, adds half of ``exp(-s) · loss``. The weight of the objective scales the whole term. A batch
    without labels of a task does not change its s.
    """

    def __init__(self, targets: Sequence[Target], device: torch.device) -> None:
        super().__init__(targets)
        self.factors = [0.5 if target.loss is mse else 1.0 for target in targets]
        self.log_variances = nn.Parameter(torch.zeros(len(targets), device=device))
        self.parameters = [self.log_variances]

    def weigh(self, position: int, loss: Tensor, labelled: Tensor) -> Tensor:
        """Weight the loss by the uncertainty; see :class:`UncertaintyWeights`."""
        s = self.log_variances[position]
        term = self.factors[position] * torch.exp(-s) * loss + s / 2 * labelled
        return self.weights[position] * term

    def numbers(self) -> dict[int, float]:
        """Get the current factor of each task's loss, without the objective's weight, to log."""
        values = torch.exp(-self.log_variances.detach()).tolist()
        return {
            position: factor * value
            for position, (factor, value, weight) in enumerate(zip(self.factors, values, self.weights, strict=True))
            if weight
        }
