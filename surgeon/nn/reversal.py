"""Gradient reversal."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn


class _Reverse(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``-strength``."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(strength)
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradients[0].dtype) * gradients[0], None


class Reversal(nn.Module):
    """The identity, whose gradient is multiplied by ``-λ`` (Ganin & Lempitsky 2015, eq. 6–7).

    What comes before it learns to make worse what comes behind it learns to make better. λ is the buffer
    ``strength``, so that it is saved with the network and a schedule can set it.

    Args:
        strength: λ, not below 0: the sign is the layer's.
    """

    strength: torch.Tensor

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength is {strength}, but the reversal supplies the sign itself")
        self.register_buffer("strength", torch.tensor(float(strength)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``features`` as they are."""
        return cast("torch.Tensor", _Reverse.apply(features, self.strength))
