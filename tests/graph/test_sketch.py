"""Sketches of tensors: rounding is not a difference, and any other change is one, wherever it lies."""

from __future__ import annotations

import pytest
import torch

from surgeon.graph.sketch import TOLERANCE, distance, sketch_of, tolerance_of


def values(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("shape", [(), (3,), (2, 10), (64, 1000), (5_000_000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_a_tensor_equals_its_sketch_and_so_does_one_with_noise_in_the_last_bits(shape, dtype):
    tensor = values(*shape, dtype=dtype)
    noise = 1 + 2 * torch.finfo(dtype).eps * values(*shape)
    assert distance(sketch_of(tensor), tensor) < TOLERANCE / 2
    assert distance(sketch_of(tensor), (tensor * noise).to(dtype)) < tolerance_of(dtype)


def test_noise_in_the_last_bits_leaves_the_sketch_as_it_is():
    tensor = values(64, 1000)
    assert sketch_of(tensor) == sketch_of(tensor * (1 + 1e-7 * values(64, 1000)))


@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("places", [slice(0, 1), slice(777, 779), slice(None)])
def test_the_distance_is_about_the_real_one(share, places):
    tensor = values(2, 1000)
    change = torch.zeros(2000)
    change[places] = values(2000)[places]
    change *= share * tensor.norm() / change.norm()
    assert 0.5 * share < distance(sketch_of(tensor), tensor + change.view(2, 1000)) < 1.6 * share


def test_another_kind_of_tensor_is_infinitely_far():
    sketch = sketch_of(values(4))
    for other in (values(5), values(4, 1), values(4).double(), torch.ones(4, dtype=torch.int64)):
        assert distance(sketch, other) == float("inf")
    odd = values(4)
    odd[1] = float("nan")
    assert distance(sketch, odd) == float("inf")
    assert distance(sketch_of(odd), odd) < TOLERANCE
    assert distance(sketch_of(torch.zeros(3)), torch.zeros(3)) == 0
    assert distance(sketch_of(torch.zeros(3)), torch.ones(3)) > 0.5


def test_integers_are_compared_exactly_or_not_at_all():
    one, other = torch.arange(9), torch.arange(9).flip(0)
    assert distance(sketch_of(one), one) == 0
    assert distance(sketch_of(one), other) == float("inf")
    assert distance(sketch_of(one, exact=False), other) == 0
    assert distance(sketch_of(one > 3), one > 4) == float("inf")
