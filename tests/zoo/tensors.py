"""Comparing what networks hold and return, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def tensors_in(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a network returned, by the path to each."""
    dot = f"{name}." if name else ""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_in(value, f"{dot}{key}")
    elif isinstance(output, (list, tuple)):
        for index, value in enumerate(output):
            yield from tensors_in(value, f"{dot}{index}")


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same to the bit."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if torch.equal(a, b):
        return True
    return torch.equal(
        a.detach().contiguous().reshape(-1).view(torch.uint8), b.detach().contiguous().reshape(-1).view(torch.uint8)
    )


def differing(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """The names under which two sets of tensors differ, or that only one of them has."""
    return [name for name in {**a, **b} if name not in a or name not in b or not same(a[name], b[name])]


def network_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a state dict holds, and the non-persistent buffers beside it."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def training_loss(output: Any) -> Tensor:
    """Something to minimise that every trainable output takes part in.

    Raises:
        ValueError: Nothing in the output depends on a trainable parameter.
    """
    losses = [
        t.float().pow(2).mean()
        for _, t in tensors_in(output)
        if t.requires_grad and t.is_floating_point() and t.numel()
    ]
    if not losses:
        raise ValueError("no output depends on a trainable parameter")
    return torch.stack(losses).sum()
