"""Reverse gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn


class _Reverse(torch.autograd.Function):
    """The identity function, whose gradient is multiplied by ``-strength``."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(strength)
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength.to(gradients[0].dtype) * gradients[0], None


class Reversal(nn.Module):
    """Return features unchanged, and multiply their gradient by ``-λ`` (Ganin & Lempitsky 2015, eq. 6–7).

    Layers before it learn to worsen what layers after it learn to improve. λ is the buffer ``strength``, so it is saved
    with the network and a schedule can set it.

    Args:
        strength: λ, at least 0: the layer adds the sign.
    """

    strength: torch.Tensor

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"strength is {strength}, but the reversal adds the sign itself")
        self.register_buffer("strength", torch.tensor(float(strength)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``features`` unchanged."""
        return cast("torch.Tensor", _Reverse.apply(features, self.strength))
