"""Pool the features of all positions to one vector, in any layout, without padding."""

from __future__ import annotations

import torch
from torch import nn

POOLS = ("avg", "max", "cls", "mean", "gem")
EPSILON = 1e-6


class Pool(nn.Module):
    """Pool features to one vector for each sample.

    Shapes: features ``(batch, …)`` with the channels in dimension ``axis`` → ``(batch, channels)``, or
    ``(batch, channels, 1, …)`` with ``keep`` dimensions of size one at the end.

    Args:
        kind: ``avg`` and ``mean`` (the same), ``max``, ``cls`` (the first position), or ``gem``: the
            generalised mean with a learned exponent that starts at 3 (Radenović, Tolias & Chum 2018, eq. 3).
        axis: The dimension of the channels: 1 for maps ``(batch, channels, height, width)``, -1 for tokens
            ``(batch, tokens, channels)`` and channels-last maps.
        masked: Take a mask into account; see :meth:`forward`.
        keep: How many dimensions of size one to add after the channels.
    """

    def __init__(self, kind: str, axis: int, *, masked: bool = False, keep: int = 0) -> None:
        super().__init__()
        if kind not in POOLS:
            raise ValueError(f"no pool {kind!r}; there are: {', '.join(POOLS)}")
        self.kind = kind
        self.axis = axis
        self.keep = keep
        self.takes_mask = masked and kind != "cls"
        if kind == "gem":
            self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool.

        Args:
            features: The features; ``axis`` is the dimension of their channels.
            mask: ``(batch, length)``, non-zero for input and zero for padding. If the features are shorter than the
                input (after a strided convolution), each position takes the mask of the input at the same relative
                position.
        """
        positions = features.movedim(self.axis, -1).flatten(1, -2)
        if self.kind == "cls":
            pooled = positions[:, 0]
        elif mask is None or not self.takes_mask or mask.ndim != 2:
            pooled = self._pool(positions)
        else:
            pooled = self._pool_masked(positions, fit_mask(mask, positions.shape[1]).unsqueeze(-1))
        return pooled.reshape(*pooled.shape, *[1] * self.keep)

    def _pool(self, positions: torch.Tensor) -> torch.Tensor:
        if self.kind == "max":
            return positions.amax(1)
        if self.kind == "gem":
            return self._powers(positions).mean(1) ** (1 / self.exponent)
        return positions.mean(1)

    def _pool_masked(self, positions: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        if self.kind == "max":
            lowest = torch.finfo(positions.dtype).min
            return positions.masked_fill(~present, lowest).amax(1)
        weights = present.to(positions.dtype)
        count = weights.sum(1).clamp(min=1)
        if self.kind == "gem":
            mean = (self._powers(positions) * weights).sum(1) / count
            return mean.clamp(min=EPSILON) ** (1 / self.exponent)
        return (positions * weights).sum(1) / count

    def _powers(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.clamp(min=EPSILON) ** self.exponent

    def extra_repr(self) -> str:
        """Show the kind and the layout."""
        return f"{self.kind}, axis={self.axis}" + (", masked" if self.takes_mask else "")


def fit_mask(mask: torch.Tensor, length: int) -> torch.Tensor:
    """Resize a mask ``(batch, any)`` to booleans ``(batch, length)``, by the nearest earlier position."""
    if mask.shape[1] != length:
        index = torch.arange(length, device=mask.device) * mask.shape[1] // length
        mask = mask[:, index]
    return mask != 0
