"""Skeletons: networks built without their weights, whatever their code does on the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from surgeon.graph.skeleton import build_skeleton, building


class Filled(nn.Module):
    """Ties, a frozen bias, and a buffer that no checkpoint holds, made in a way that only real tensors allow."""

    def __init__(self, fill: Callable[[Filled], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("table", fill(self), persistent=False)


def from_empty(_: Filled) -> torch.Tensor:
    table = torch.empty(3)
    return table.fill_(2.0)


def from_own_values(_: Filled) -> torch.Tensor:
    table = from_empty(_)
    return table * table.sum().item() / 6


def as_array(_: Filled) -> torch.Tensor:
    return torch.from_numpy(from_empty(_).numpy())


def from_parameter(network: Filled) -> torch.Tensor:
    return torch.full((3,), 2.0) + 0 * network.first.weight.detach().sum()


def from_values_of_a_parameter(network: Filled) -> torch.Tensor:
    return torch.full((3,), 2.0 if bool((network.first.weight.abs() < 9).all()) else 0.0)


@pytest.mark.parametrize("fill", [from_empty, from_own_values, as_array, from_parameter, from_values_of_a_parameter])
def test_a_factory_that_needs_values_gives_a_skeleton_with_its_buffers_ties_and_flags(fill):
    random = torch.random.get_rng_state()
    model = build_skeleton(lambda: Filled(fill))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.table.tolist() == [2.0, 2.0, 2.0]
    assert model.second.weight is model.first.weight
    assert not model.first.bias.requires_grad
    assert torch.equal(torch.random.get_rng_state(), random)


@pytest.mark.parametrize("fill", [from_empty, from_own_values, as_array])
def test_a_buffer_that_needs_values_does_not_make_the_parameters_real(fill):
    with building(allocate=True):
        model = Filled(fill)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.table.tolist() == [2.0, 2.0, 2.0]


def test_a_network_that_runs_while_it_is_built_has_a_skeleton():
    def ssdlite() -> nn.Module:
        return torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)

    model = build_skeleton(ssdlite)
    assert all(parameter.is_meta for parameter in model.parameters())
    shapes = {name: tensor.shape for name, tensor in ssdlite().state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (TypeError("Net() got an unexpected keyword argument 'width'"), 1),
        (RuntimeError("out of luck"), 1),
        (RuntimeError("there is no meta data"), 3),
    ],
)
def test_what_a_factory_raises_is_raised(error, calls):
    called = []

    def factory() -> nn.Module:
        called.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        build_skeleton(factory)
    assert caught.value is error
    assert len(called) == calls


@pytest.mark.parametrize("size", [(np.int64(4),), ((4,),), (torch.Size([4]),), (2, 2)])
def test_sizes_of_any_kind_are_taken(size):
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(*size), persistent=False)

    assert build_skeleton(Buffered).table.sum() == 4


def test_a_wrong_size_is_pytorchs_to_refuse():
    with pytest.raises(TypeError, match="zeros"):
        build_skeleton(lambda: nn.ParameterList([torch.zeros("four")]))
