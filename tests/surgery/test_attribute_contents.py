"""What the objects in attributes hold, and the methods of a class, are compared before and after an operation."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import NamedTuple

import numpy
import pytest
import torch
from torch import nn

import surgeon
from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation


class Slotted:
    __slots__ = ("factor",)

    def __init__(self) -> None:
        self.factor = 1


def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x * factor


class Parent(nn.Module):
    """A class whose methods the network inherits, or calls from its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(x)

    def readout(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Holding(Parent):
    """Holds objects whose contents can change in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("offset", torch.zeros(2), persistent=False)
        self.table = numpy.zeros(3)
        self.history = deque([1])
        self.scale = partial(scaled, factor=1.0)
        self.slots = Slotted()
        self.pair = Pair([1], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(super().forward(x))


class Pair(NamedTuple):
    first: list[int]
    second: int


CONTENTS = {
    "what offset holds": lambda model: model.offset.data.fill_(1.0),
    "table": lambda model: model.table.__setitem__(0, 3.0),
    "history": lambda model: model.history.append(2),
    "scale": lambda model: model.scale.keywords.update(factor=2.0),
    "slots.factor": lambda model: setattr(model.slots, "factor", 2),
    "pair": lambda model: model.pair.first.append(2),
    "the method forward of Holding": lambda model: setattr(type(model), "forward", lambda self, x: x),
    "the method forward of Parent": lambda model: setattr(Parent, "forward", lambda self, x: 2 * x),
    "the method readout of Parent": lambda model: setattr(Parent, "readout", lambda self, x: 2 * x),
}


class Changing(Operation):
    """Change what an attribute holds."""

    place: str

    def apply(self, model: nn.Module, surgery: surgeon.Surgery) -> nn.Module:
        CONTENTS[self.place](surgery.model)
        return surgery.model


TENSORS = {
    "cast 2 tensors outside its journal: layer.weight": (lambda model: model.double(), "surgery.convert"),
    "swapped the contents of 1 tensor outside its journal: layer.weight": (
        lambda model: torch.utils.swap_tensors(model.layer.weight, nn.Parameter(torch.empty(2, 2, device="meta"))),
        "surgery.derive",
    ),
    "hooked gradients .*layer.weight": (
        lambda model: model.layer.weight.register_hook(lambda gradient: gradient * 0),
        "surgery.freeze",
    ),
    "hooked gradients .*layer.bias": (
        lambda model: model.layer.bias.register_post_accumulate_grad_hook(lambda parameter: None),
        "surgery.freeze",
    ),
}


@pytest.mark.parametrize("message", TENSORS)
def test_casts_and_hooks_on_gradients_are_refused_with_the_right_verb(message, monkeypatch):
    act, verb = TENSORS[message]
    monkeypatch.setitem(CONTENTS, "tensors", act)
    with pytest.raises(OperationError, match=rf"{message}[\s\S]*{verb}"):
        surgeon.plan(Holding(), [Changing(place="tensors")], inputs=[1, 2])


@pytest.mark.parametrize("place", CONTENTS)
def test_what_an_attribute_holds_and_the_methods_of_a_class_are_compared_too(place, monkeypatch):
    for cls, method in ((Holding, "forward"), (Parent, "forward"), (Parent, "readout")):
        monkeypatch.setattr(cls, method, getattr(cls, method))
    with pytest.raises(OperationError, match=rf"changed outside its journal: .*{place}"):
        surgeon.plan(Holding(), [Changing(place=place)], inputs=[1, 2])


class Caching(nn.Module):
    """Keeps in its attributes what a forward computed, as Levit does its biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.biases: dict[str, torch.Tensor] = {}
        self.seen: list[torch.Size] = []
        self.register_buffer("scale", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.biases.setdefault(str(x.device), x.new_ones(2))
        self.seen.append(x.shape)
        self.scale = x.new_ones(2)
        self.last = x
        return self.head(self.layer(x) * self.scale + self.biases[str(x.device)])


def test_what_a_forward_keeps_in_attributes_is_not_the_operations_and_is_taken_out_again():
    model = Caching()
    biases = model.biases
    edited = surgeon.apply(model, [surgeon.Freeze(sites="layer")], inputs=[1, 2])
    assert (edited.biases, edited.seen, "last" in vars(edited)) == ({}, [], False)
    assert torch.equal(edited.scale, torch.ones(2))
    assert (model.biases is biases, biases) == (True, {})
    x = torch.rand(3, 2)
    assert torch.equal(edited(x), model(x))
