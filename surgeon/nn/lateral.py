"""Connect columns of a progressive network: add features of earlier columns to those of a later one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from surgeon.errors import OperationError
from surgeon.nn.features import main_tensor, with_main_tensor
from surgeon.nn.grafts import Tap

Kind = Literal["linear", "conv", "mlp"]
CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@dataclass(frozen=True)
class Layout:
    """Describe the layout of a site's features.

    Attributes:
        channels: The number of channels (the width, of tokens).
        rank: The number of dimensions besides batch and channels: 0 vectors, 1 tokens, 2 maps, 3 video.
        last: The channels are the last dimension: ``(batch, …, channels)``, not ``(batch, channels, …)``.
    """

    channels: int
    rank: int
    last: bool

    def positions(self, features: torch.Tensor) -> Sequence[int]:
        """Get the sizes of the dimensions besides batch and channels."""
        return features.shape[1:-1] if self.last else features.shape[2:]


class Adapter(nn.Module):
    """Convert one column's features to the shape of another's: scale by a learnt α, resample, project.

    ``linear`` and ``conv`` (1×1) are ``U α h``, ``mlp`` is the bottleneck ``U relu(V α h)`` of Rusu et al. 2016,
    eq. 2. There are no biases, so that the result is at first as small as α.

    Shapes: ``(batch, …, channels)`` in the layout ``source`` → the shape of the features that it is added to.

    Args:
        source: The layout of the input.
        target: The layout of the features that the result is added to.
        kind: linear or mlp act on the channels of each position; conv needs a rank of 1 to 3.
        hidden: The width of the mlp's bottleneck.
        alpha: The initial value of α.
    """

    def __init__(self, source: Layout, target: Layout, kind: Kind, hidden: int, alpha: float) -> None:
        super().__init__()
        self.source = source
        self.target = target
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.project: nn.Module
        if kind == "conv":
            self.project = CONVOLUTIONS[target.rank](source.channels, target.channels, 1, bias=False)
        elif kind == "linear":
            self.project = nn.Linear(source.channels, target.channels, bias=False)
        else:
            self.project = nn.Sequential(
                nn.Linear(source.channels, hidden, bias=False),
                nn.ReLU(),
                nn.Linear(hidden, target.channels, bias=False),
            )
        self.channels_first = kind == "conv"

    def forward(self, features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Convert ``features`` to the shape of ``like``."""
        scaled = features.to(self.alpha.dtype) * self.alpha
        maps = scaled.movedim(-1, 1) if self.source.last else scaled
        maps = resample(maps, self.target.positions(like))
        if self.channels_first:
            adapted: torch.Tensor = self.project(maps)
            return adapted.movedim(1, -1) if self.target.last else adapted
        adapted = self.project(maps.movedim(1, -1))
        return adapted if self.target.last else adapted.movedim(-1, 1)

    def extra_repr(self) -> str:
        """Show the layouts."""
        return f"{self.source} -> {self.target}"


class Lateral(nn.Module):
    """Add the outputs of sites of earlier columns to the output of a site of a later column.

    Args:
        taps: Read the earlier columns' sites.
        adapters: One for each tap.
    """

    alters: ClassVar[bool] = True
    """Its hook changes the output; see :func:`surgeon.nn.grafts.hook`."""

    def __init__(self, taps: Iterable[Tap], adapters: Iterable[Adapter]) -> None:
        super().__init__()
        self.taps = nn.ModuleList(taps)
        self.adapters = nn.ModuleList(adapters)

    def add(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Change the output of the later column's site; a forward hook."""
        tensor = main_tensor(output)
        return output if tensor is None else with_main_tensor(output, self(tensor))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Add the adapted values of the taps to ``features``."""
        for tap, adapter in zip(self.taps, self.adapters, strict=True):
            value = tap.value
            if value is None:
                raise OperationError(
                    "a lateral connection has nothing to read: its column ran outside the progressive network",
                    hint="call the whole network; switch gradient checkpointing off in its newest column",
                )
            features = features + adapter(value, features).to(features.dtype)
        return features


def resample(maps: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
    """Resample ``(batch, channels, …)`` to other positions: average if there are fewer, else interpolate.

    If the numbers of dimensions differ, flatten the positions first; a vector is repeated at every position.
    """
    rank, rank_out = maps.ndim - 2, len(positions)
    if tuple(maps.shape[2:]) == tuple(positions):
        return maps
    if rank_out == 0:
        return maps.flatten(2).mean(2)
    if rank == 0:
        return maps.reshape(*maps.shape, *[1] * rank_out).expand(*maps.shape, *positions)
    if rank != rank_out:
        line = resample(maps.flatten(2), [prod(positions)])
        return line.reshape(*maps.shape[:2], *positions)
    if all(new <= old for new, old in zip(positions, maps.shape[2:], strict=True)):
        pools: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
        pooled: torch.Tensor = pools[rank - 1](maps, list(positions))
        return pooled
    mode = ("linear", "bilinear", "trilinear")[rank - 1]
    return F.interpolate(maps, size=list(positions), mode=mode, align_corners=False)
