"""Layers to put into trained networks: of any layout, and the identity to start with where that is wanted."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}

Kind = Literal["linear", "conv", "norm", "dropout", "adapter"]


class OnChannels(nn.Module):
    """Lets a layer that works on the last dimension work on the channels.

    Shapes: ``(batch, …)`` with the channels in dimension ``axis`` → the same, with as many channels as the layer
    makes.
    """

    def __init__(self, layer: nn.Module, axis: int) -> None:
        super().__init__()
        self.layer = layer
        self.axis = axis

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """What the layer makes of every position's channels."""
        return cast("torch.Tensor", self.layer(features.movedim(self.axis, -1)).movedim(-1, self.axis))


class BottleneckAdapter(nn.Module):
    """A bottleneck beside the identity: ``h + U σ(D h)`` (Houlsby et al. 2019).

    On maps it acts at every position (Rebuffi et al. 2017). U starts at zero, so that the adapter starts as the
    identity, to the bit.

    Shapes: ``(…, features)`` → the same.

    Args:
        features: The width of what it reads.
        hidden: The width of the bottleneck.
        activation: σ: ``relu``, ``gelu`` or ``none``.
    """

    def __init__(self, features: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.down = nn.Linear(features, hidden)
        self.activation = ACTIVATIONS[activation]() if activation != "none" else nn.Identity()
        self.up = nn.Linear(hidden, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw D as PyTorch does, and let U be zero."""
        self.down.reset_parameters()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The features, and what the bottleneck adds."""
        return features + cast("torch.Tensor", self.up(self.activation(self.down(features))))


def layer_for(
    kind: Kind,
    features: int,
    outputs: int,
    *,
    axis: int,
    dims: int,
    hidden: int = 1,
    share: float = 0.0,
    kernel: int = 1,
    activation: str = "none",
    identity: bool = False,
) -> nn.Module:
    """A layer for features of any layout.

    Shapes: ``(batch, …)`` with ``features`` channels in dimension ``axis`` → the same with ``outputs`` channels.

    Args:
        kind: Which; conv needs channels in dimension 1 and ``dims`` of 1 to 3.
        features: The channels of what it reads.
        outputs: The channels of what it makes; for linear and conv these may differ.
        axis: The dimension of the channels: 1, or -1.
        dims: The number of dimensions besides batch and channels.
        hidden: The width of an adapter's bottleneck.
        share: The share that a dropout drops.
        kernel: The odd kernel size of a conv, which keeps the size of the map.
        activation: Behind a linear or conv, or inside an adapter: none, relu, gelu.
        identity: A linear or conv starts as the identity.
    """
    if kind == "dropout":
        return nn.Dropout(share)
    if kind == "conv":
        layer: nn.Module = CONVOLUTIONS[dims](features, outputs, kernel, padding=kernel // 2)
    elif kind == "norm":
        layer = nn.LayerNorm(features)
    elif kind == "adapter":
        layer = BottleneckAdapter(features, hidden, activation)
    else:
        layer = nn.Linear(features, outputs)
    if identity:
        weight, bias = cast("nn.Linear", layer).weight, cast("nn.Linear", layer).bias
        nn.init.dirac_(weight) if kind == "conv" else nn.init.eye_(weight)
        nn.init.zeros_(bias)
    if kind != "conv" and dims > 0 and axis == 1:
        layer = OnChannels(layer, axis)
    if activation != "none" and kind in ("linear", "conv"):
        return nn.Sequential(layer, ACTIVATIONS[activation]())
    return layer
