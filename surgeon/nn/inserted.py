"""Make layers to insert into trained networks, for any layout, optionally initialised to the identity."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}

Kind = Literal["linear", "conv", "norm", "dropout", "adapter"]


class OnChannels(nn.Module):
    """Apply a layer for the last dimension to the channels.

    Shapes: ``(batch, …)`` with the channels in dimension ``axis`` → the same, with the layer's number of output
    channels.
    """

    def __init__(self, layer: nn.Module, axis: int) -> None:
        super().__init__()
        self.layer = layer
        self.axis = axis

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Apply the layer to the channels of every position."""
        return cast("torch.Tensor", self.layer(features.movedim(self.axis, -1)).movedim(-1, self.axis))


class BottleneckAdapter(nn.Module):
    """Add a bottleneck to the features: ``h + U σ(D h)`` (Houlsby et al. 2019).

    On feature maps it acts at every position (Rebuffi et al. 2017). U is initialised to zero, so that the adapter
    starts as exactly the identity.

    Shapes: ``(…, features)`` → the same.

    Args:
        features: The width of the features.
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
        """Initialise D as PyTorch does, and U to zero."""
        self.down.reset_parameters()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Add the bottleneck's output to the features."""
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
    """Make a layer for features of any layout.

    Shapes: ``(batch, …)`` with ``features`` channels in dimension ``axis`` → the same with ``outputs`` channels.

    Args:
        kind: The kind of layer; conv needs channels in dimension 1 and ``dims`` of 1 to 3.
        features: The number of input channels.
        outputs: The number of output channels; linear and conv may change it.
        axis: The dimension of the channels: 1, or -1.
        dims: The number of dimensions besides batch and channels.
        hidden: The width of an adapter's bottleneck.
        share: The share that a dropout drops.
        kernel: The odd kernel size of a conv, which keeps the size of the feature map.
        activation: The activation after a linear or conv, or inside an adapter: none, relu, gelu.
        identity: Initialise a linear or conv to the identity.
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
