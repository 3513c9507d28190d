"""Measure how far tensors moved: sums over pieces of two tensors give norms and cosines for any group of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**19
"""Elements per piece: 4 MB of each tensor in double precision."""


@dataclass(frozen=True)
class Movement:
    """The distance between the values a and b of one or several tensors.

    Attributes:
        squared_a: ‖a‖².
        squared_b: ‖b‖².
        squared_step: ‖b − a‖².
        product: a · b.
        largest: The largest |b − a| of an element.
        not_finite: How many elements are NaN or infinite in a or b; the sums exclude them.
    """

    squared_a: float = 0.0
    squared_b: float = 0.0
    squared_step: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    not_finite: int = 0

    def __add__(self, other: Movement) -> Movement:
        return Movement(
            self.squared_a + other.squared_a,
            self.squared_b + other.squared_b,
            self.squared_step + other.squared_step,
            self.product + other.product,
            max(self.largest, other.largest),
            self.not_finite + other.not_finite,
        )

    @property
    def relative(self) -> float | None:
        """‖b − a‖ / ‖a‖; None if a is zero and b is not."""
        if self.squared_step == 0.0:
            return 0.0
        return math.sqrt(self.squared_step / self.squared_a) if self.squared_a > 0.0 else None

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between a and b; None if either is zero."""
        if self.squared_a == 0.0 or self.squared_b == 0.0:
            return None
        if self.squared_step == 0.0:
            return 1.0
        cosine = self.product / (math.sqrt(self.squared_a) * math.sqrt(self.squared_b))
        return max(-1.0, min(1.0, cosine))


def compare(a: Iterable[Tensor], b: Iterable[Tensor]) -> tuple[bool, Movement | None]:
    """Compare two tensors of one shape piece by piece.

    Args:
        a: The flat pieces of the first tensor.
        b: The flat pieces of the second, of the same lengths.

    Returns:
        Whether they have the same dtype and bytes (a NaN equals itself), and the movement; None for dtypes that do not
        convert to numbers.
    """
    same, total = True, Movement()
    plain = True
    for piece_a, piece_b in zip(a, b, strict=True):
        same = same and _same(piece_a, piece_b)
        plain = plain and piece_a.is_complex() == piece_b.is_complex()
        if plain:
            try:
                total += _movement(_numbers(piece_a), _numbers(piece_b))
            except (RuntimeError, TypeError):  # packed dtypes (float4) have no conversion to numbers
                plain = False
    return same, total if plain else None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _numbers(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()).reshape(-1).double() if tensor.is_complex() else tensor.double()


def _movement(a: Tensor, b: Tensor) -> Movement:
    finite = a.isfinite() & b.isfinite()
    not_finite = int(a.numel() - finite.sum())
    if not_finite:
        a, b = a[finite], b[finite]
    if not a.numel():
        return Movement(not_finite=not_finite)
    step = b - a
    return Movement(
        float(a.dot(a)), float(b.dot(b)), float(step.dot(step)), float(a.dot(b)), float(step.abs().max()), not_finite
    )
