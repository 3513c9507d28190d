"""Define the mark of missing labels, and find the labels that are present."""

from __future__ import annotations

from torch import Tensor

IGNORED = -100
"""The missing label for integers, as in PyTorch; for floats it is NaN."""


def present(target: Tensor) -> Tensor:
    """Return a mask of the labels in ``target`` that are present: not NaN for floats, not -100 for integers."""
    if target.is_floating_point():
        return ~target.isnan()
    return target != IGNORED
