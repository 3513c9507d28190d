"""Modules and operations with one mistake each, which the conformance kit has to refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from surgeon.interfaces.operation import Operation


class Good(nn.Module):
    """A layer without a mistake: learned factors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.factors


class HiddenBuffer(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("mean", torch.zeros(width), persistent=False)

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return super().forward(x) - self.mean


class PlainTensor(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.offset = torch.full((width,), 0.5)

    def forward(self, x):
        return super().forward(x) + self.offset


def _double(module, args, output):
    return output * 2


class ClosureHook(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_forward_hook(_double)


class PatchedForward(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.forward = self._doubled

    def _doubled(self, x):
        return x * self.factors * 2


class Unpicklable(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.activation = lambda x: x.relu()

    def forward(self, x):
        return self.activation(super().forward(x))


def local(width: int) -> nn.Module:
    class Local(Good):
        pass

    return Local(width)


class FixedBatch(Good):
    def forward(self, x):
        return super().forward(x).reshape(2, -1)


class Mixing(Good):
    def forward(self, x):
        return super().forward(x) - x.mean(0)


class WithoutGradient(Good):
    def forward(self, x):
        return x * self.factors.detach()


class Detached(Good):
    def forward(self, x):
        return super().forward(x.detach())


class HidesNan(Good):
    def forward(self, x):
        return super().forward(x).nan_to_num()


class DropoutLeftOn(Good):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5)


class EvalLeftOn(Good):
    def forward(self, x):
        self.eval()
        return super().forward(x)


class NeverTrains(Good):
    def train(self, mode: bool = True):
        return super().train(False)


class OnlyFloat32(Good):
    def forward(self, x):
        return F.linear(super().forward(x), torch.eye(x.shape[1]))


class OwnRandomness(Good):
    drawn = 0

    def __init__(self, width: int) -> None:
        super().__init__(width)
        OwnRandomness.drawn += 1
        self.shift = OwnRandomness.drawn

    def forward(self, x):
        return super().forward(x) + self.shift


MAKE: dict[str, Callable[[int], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        Good, HiddenBuffer, PlainTensor, ClosureHook, PatchedForward, Unpicklable, FixedBatch, Mixing, WithoutGradient,
        Detached, HidesNan, DropoutLeftOn, EvalLeftOn, NeverTrains, OnlyFloat32, OwnRandomness,
    )
} | {"Local": local}  # fmt: skip


class Behind(Operation):
    """Put a module behind a site."""

    module: str
    at: str = "hidden"

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        surgery.insert(self.at, surgery.new(MAKE[self.module], 8), name="added")
        return surgery.model


class Attached(Operation):
    """Add a module that nothing calls."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        surgery.attach("hidden", "extra", surgery.new(nn.Linear, 8, 8))
        return surgery.model


class InitialisesNow(Operation):
    """Initialise a new module where it has no values yet."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        layer = surgery.new(nn.Linear, 8, 8)
        nn.init.eye_(layer.weight)
        surgery.insert("hidden", layer)
        return surgery.model


class WritesNow(Operation):
    """Write into a weight of the skeleton."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        with torch.no_grad():
            model.head.weight.zero_()
        return surgery.model


class PatchesTheNetwork(Operation):
    """Replace the forward of a module of the network."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        before = model.hidden.forward
        model.hidden.forward = lambda x: before(x) * 2
        return surgery.model


class HooksTheNetwork(Operation):
    """Hook a module of the network by a function."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        model.hidden.register_forward_hook(_double)
        return surgery.model


class Network(nn.Module):
    """What they are applied to."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.hidden(x).relu()
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x)


def build() -> nn.Module:
    torch.manual_seed(0)
    return Network()
