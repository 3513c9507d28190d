"""Sums over pieces of two tensors are the norms and cosines of the whole."""

from __future__ import annotations

import math

import pytest
import torch

from surgeon.pipeline.movement import Movement, compare


def test_pieces_add_up_to_what_torch_says_of_the_whole():
    torch.manual_seed(0)
    a, b = torch.randn(60), torch.randn(60)
    same, whole = compare(a.split(7), b.split(7))
    assert not same
    assert whole is not None
    assert whole.relative == pytest.approx(float((b - a).norm() / a.norm()), rel=1e-6)
    assert whole.cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), rel=1e-5)
    assert whole.largest == pytest.approx(float((b - a).abs().max()))


def test_equal_bytes_are_the_same_a_nan_included_and_another_dtype_is_not():
    a = torch.tensor([1.0, math.nan])
    assert compare([a], [a.clone()])[0]
    assert not compare([a], [a.half()])[0]
    assert not compare([torch.tensor([0.0])], [torch.tensor([-0.0])])[0], "the bytes of -0 differ"


def test_values_that_are_not_finite_are_counted_and_left_out_of_the_sums():
    _, movement = compare([torch.tensor([3.0, math.inf, 1.0])], [torch.tensor([4.0, 0.0, math.nan])])
    assert movement is not None
    assert (movement.not_finite, movement.squared_a, movement.squared_b, movement.largest) == (2, 9.0, 16.0, 1.0)


def test_complex_numbers_move_by_their_parts():
    _, movement = compare([torch.tensor([1 + 1j])], [torch.tensor([1 + 3j])])
    assert movement is not None
    assert movement.squared_step == 4
    assert compare([torch.tensor([1 + 1j])], [torch.tensor([1.0])])[1] is None


@pytest.mark.parametrize(
    ("movement", "relative", "cosine"),
    [
        (Movement(), 0.0, None),
        (Movement(squared_b=4.0, squared_step=4.0), None, None),
        (Movement(squared_a=4.0, squared_b=4.0, product=4.0), 0.0, 1.0),
        (Movement(squared_a=4.0, squared_b=4.0, squared_step=16.0, product=-4.0), 2.0, -1.0),
    ],
)
def test_ratios_without_a_divisor_are_unknown(movement, relative, cosine):
    assert (movement.relative, movement.cosine) == (relative, cosine)
