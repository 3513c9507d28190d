"""Find NaN and infinite values among weights: a network with one of them returns NaN, and nobody sees where from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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


def describe_nonfinite(counts: Mapping[str, int]) -> str:
    """Name the first tensors with NaN or infinite values, and how many others there are."""
    few = ", ".join(f"{name} ({number})" for name, number in list(counts.items())[:3])
    more = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return f"NaN or infinite values in {few}{more}"
