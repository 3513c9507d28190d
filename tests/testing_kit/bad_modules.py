"""Modules and operations with one mistake each, which the conformance kit has to refuse."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy
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


class State:
    """An object that is not a module."""

    def __init__(self, offset) -> None:
        self.offset = offset


class TensorInObject(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.states = [State(torch.full((width,), 0.5))]

    def forward(self, x):
        return super().forward(x) + self.states[0].offset


OFFSET = torch.full((8,), 0.5)


class TensorOutside(Good):
    def forward(self, x):
        return super().forward(x) + OFFSET


class KeepsItsInput(Good):
    def forward(self, x):
        self.last = x.detach()
        return super().forward(x)


class Counts(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
        return super().forward(x)


class Locked(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.lock = threading.Lock()


class PartialHook(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_forward_pre_hook(functools.partial(_scaled, factor=2.0))


def _scaled(module, args, *, factor):
    return (args[0] * factor,)


class BatchSoftmax(Good):
    def forward(self, x):
        return super().forward(x) * x.softmax(0)


class WithoutStatistics(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width, affine=False, track_running_stats=False)

    def forward(self, x):
        return self.norm(super().forward(x)) if len(x) > 1 else super().forward(x)


class ExpandsToTwo(Good):
    def forward(self, x):
        return super().forward(x) + self.factors.new_zeros(2, 1)


class TimesZero(Good):
    def forward(self, x):
        return x + 0 * self.factors


class DeadChild(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.spare = nn.Linear(width, width)


class NoGrad(Good):
    def forward(self, x):
        with torch.no_grad():
            x = x * 2
        return super().forward(x)


class NanByWhere(Good):
    def forward(self, x):
        return super().forward(torch.where(x.isnan(), 0.0, x))


class DropoutModuleLeftOn(Good):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        self.dropout.train()
        return self.dropout(super().forward(x))


class Seeds(Good):
    def forward(self, x):
        torch.manual_seed(0)
        return super().forward(x)


class GradientsLeftOff(Good):
    def forward(self, x):
        y = super().forward(x)
        torch.set_grad_enabled(False)
        return y


class Branches(Good):
    def forward(self, x):
        x = super().forward(x)
        return x if x.sum().item() > 1e9 else x * 2


class PythonNumbers(Good):
    def forward(self, x):
        scale = float(numpy.asarray(self.factors.detach().float()).mean())
        return super().forward(x) * scale


MAKE: dict[str, Callable[[int], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        Good, HiddenBuffer, PlainTensor, ClosureHook, PatchedForward, Unpicklable, FixedBatch, Mixing, WithoutGradient,
        Detached, HidesNan, DropoutLeftOn, EvalLeftOn, NeverTrains, OnlyFloat32, OwnRandomness, TensorInObject,
        TensorOutside, KeepsItsInput, Counts, Locked, PartialHook, BatchSoftmax, WithoutStatistics, ExpandsToTwo,
        TimesZero, DeadChild, NoGrad, NanByWhere, DropoutModuleLeftOn, Seeds, GradientsLeftOff, Branches, PythonNumbers,
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


class ByHash(Operation):
    """Put factors behind sites, in an order that hash seeds decide."""

    def apply(self, model: nn.Module, surgery: Any) -> nn.Module:
        width = sum(ord(letter) for letter in next(iter({"hidden", "blocks", "head", "other", "further"})))
        surgery.insert("hidden", surgery.new(Bias, 8, width), name="added")
        return surgery.model


class Bias(nn.Module):
    def __init__(self, width: int, start: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((width,), float(start)))

    def forward(self, x):
        return x + self.bias


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


def inputs_of() -> tuple[torch.Tensor]:
    return (torch.randn(2, 6, generator=torch.Generator().manual_seed(1)),)
