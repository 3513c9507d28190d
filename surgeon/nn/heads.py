"""Define the heads that operations put on features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from surgeon.nn.pooling import Pool
from surgeon.nn.reversal import Reversal

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class CosineLinear(nn.Module):
    """Score by the angle between features and a prototype per class (Gidaris & Komodakis 2018, eq. 3).

    ``scale · cos(features, weight[class])``; the scale is learned and starts at 10.

    Shapes: ``(…, in_features)`` → ``(…, out_features)``.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.scale = nn.Parameter(torch.full((1,), 10.0))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Compute the scaled cosines."""
        directions = functional.normalize(features, dim=-1)
        return self.scale * functional.linear(directions, functional.normalize(self.weight, dim=-1))

    def extra_repr(self) -> str:
        """Show the widths like ``nn.Linear``."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def head_layers(
    features: int,
    outputs: int,
    *,
    kind: str = "linear",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    bias: bool = True,
) -> nn.Module:
    """Make the layers of a head on vectors; by default a single ``nn.Linear``.

    Shapes: ``(…, features)`` → ``(…, outputs)``.

    Args:
        features: The width of the input.
        outputs: The number of scores.
        kind: ``linear``, ``mlp`` or ``cosine``.
        hidden: Widths of the hidden layers of an ``mlp``. Default: one layer as wide as the features.
        dropout: The dropout probability after each hidden layer and before the last layer.
        bias: Whether the last layer has a bias.
    """
    widths = [features, *(list(hidden) or ([features] if kind == "mlp" else []))]
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers += [nn.Linear(width, next_width), nn.ReLU(), *_dropout(dropout)]
    if len(widths) == 1:
        layers += _dropout(dropout)
    last = CosineLinear(widths[-1], outputs) if kind == "cosine" else nn.Linear(widths[-1], outputs, bias=bias)
    return nn.Sequential(*layers, last) if layers else last


def conv_layers(
    features: int,
    outputs: int,
    *,
    dims: int = 2,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    kernel: int = 3,
    **last: Any,
) -> nn.Module:
    """Make the layers of a head on feature maps; by default a single convolution.

    Shapes: ``(batch, features, …)`` → ``(batch, outputs, …)`` with ``dims`` spatial dimensions.

    Args:
        features: The number of input channels.
        outputs: The number of scores per position.
        dims: 1, 2 or 3.
        hidden: Channels of hidden layers.
        dropout: The dropout probability after each hidden layer and before the last layer.
        kernel: The odd kernel size of the hidden layers, which keep the size of the map. **last: Options of the last
        convolution, which is 1×1 by default.
    """
    convolution = CONVOLUTIONS[dims]
    layers: list[nn.Module] = []
    for width, next_width in pairwise([features, *hidden]):
        layers += [convolution(width, next_width, kernel, padding=kernel // 2), nn.ReLU(), *_dropout(dropout)]
    if not hidden:
        layers += _dropout(dropout)
    final = convolution([features, *hidden][-1], outputs, **{"kernel_size": 1, **last})
    return nn.Sequential(*layers, final) if layers else final


def scored_conv(channels: int, outputs: int, *, prior: float | None, std: float | None, **options: Any) -> nn.Module:
    """Make the last convolution of a detector, initialised as its family does.

    Args:
        channels: The number of input channels.
        outputs: Scores per position: anchors times classes.
        prior: The initial probability that sets the bias (Lin et al. 2017, section 4.1); None for zero.
        std: The standard deviation of its weights; None for PyTorch's initialisation. **options: Options of
        ``nn.Conv2d``.
    """
    convolution = nn.Conv2d(channels, outputs, **options)
    if std is not None:
        nn.init.normal_(convolution.weight, std=std)
    if convolution.bias is not None and std is not None:
        bias = 0.0 if prior is None else float(torch.logit(torch.tensor(prior, dtype=torch.float64)))
        nn.init.constant_(convolution.bias, bias)
    return convolution


class Head(nn.Module):
    """Pool, then apply layers.

    Shapes: ``(batch, …)`` with the channels in dimension ``axis`` → ``(batch, outputs)``; without a pool the same shape
        with
    ``outputs`` instead of the channels.

    Args:
        features: The number of channels.
        outputs: The number of scores.
        kind: ``linear``, ``mlp``, ``cosine``, or ``conv``, which scores every position and pools the scores, as in
            SqueezeNet.
        hidden: Widths of hidden layers.
        dropout: The dropout probability.
        pool: One of :data:`surgeon.nn.pooling.POOLS`, or ``none``.
        axis: The dimension of the channels.
        dims: The number of dimensions besides batch and channels.
        masked: Whether the head gets the padding mask, ``(batch, length)``.
        reversal: The initial strength of a gradient reversal before the head, see
            :class:`surgeon.nn.reversal.Reversal`; None for none.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        kind: str = "linear",
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        pool: str = "none",
        axis: int = -1,
        dims: int = 0,
        masked: bool = False,
        reversal: float | None = None,
    ) -> None:
        super().__init__()
        self.dense = kind == "conv"
        self.axis = axis
        self.reversal = None if reversal is None else Reversal(reversal)
        self.pool = None if pool == "none" else Pool(pool, 1 if self.dense else axis, masked=masked)
        self.takes_mask = self.pool is not None and self.pool.takes_mask
        if self.dense:
            self.layers = conv_layers(features, outputs, dims=dims, hidden=hidden, dropout=dropout)
        else:
            self.layers = head_layers(features, outputs, kind=kind, hidden=hidden, dropout=dropout)

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the scores."""
        if self.reversal is not None:
            features = self.reversal(features)
        if self.dense:
            scores = self.layers(features.movedim(self.axis, 1))
            return cast("torch.Tensor", scores.movedim(1, self.axis) if self.pool is None else self.pool(scores, mask))
        if self.pool is not None:
            return cast("torch.Tensor", self.layers(self.pool(features, mask)))
        return cast("torch.Tensor", self.layers(features.movedim(self.axis, -1)).movedim(-1, self.axis))


def last_layer(head: nn.Module) -> nn.Module:
    """Return the layer of a head that computes the scores.

    Raises:
        ValueError: The head has no layer with weights.
    """
    layers = [m for m in head.modules() if isinstance(m, (nn.Linear, CosineLinear, *CONVOLUTIONS.values()))]
    if not layers:
        raise ValueError(f"{type(head).__name__} has no layer with weights")
    return layers[-1]


def _dropout(share: float) -> list[nn.Module]:
    return [nn.Dropout(share)] if share else []
