"""Find NaN and infinite values among weights: a network with one of them returns NaN, and nobody sees where from."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def count_nonfinite(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, int]:
    """Count NaN and infinite values by tensor; tensors without any are left out."""
    counts = {}
    for name, tensor in tensors:
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            continue
        if tensor.element_size() == 1:  # isfinite is not defined for 8-bit floats
            tensor = tensor.float()
        if count := int((~torch.isfinite(tensor)).sum()):
            counts[name] = count
    return counts
