"""Mark labels that are missing, and tell which are present."""

from __future__ import annotations

from torch import Tensor

IGNORED = -100
"""The missing label among whole numbers, as in PyTorch; among real numbers it is NaN."""


def present(target: Tensor) -> Tensor:
    """Where ``target`` has a label: neither NaN, if it holds real numbers, nor -100, if whole ones."""
    if target.is_floating_point():
        return ~target.isnan()
    return target != IGNORED
