"""Run networks and compare what they give, for the checks of the conformance kit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from surgeon.interfaces.operation import Operation

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Loss = Callable[[nn.Module], torch.Tensor]
"""Computes a scalar from a network."""
SEED = 1
"""The seed that operations are applied with."""


@dataclass(frozen=True)
class Case:
    """Hold a network before and after its surgery, and what a forward of it takes.

    Attributes:
        original: The network that the author's function makes, in eval mode.
        edited: The edited network, in eval mode.
        arguments: Positional and keyword arguments of a forward of the edited network.
        names: What to call the operations.
        build: Makes the original, the same one on each call.
        operations: The operations.
        new: The names of tensors that the operations made, and of those that they computed from others.
        kept: The name in the original of each tensor that was kept.
        loss: Computes a scalar from a network, if its training forward needs other arguments.
    """

    original: nn.Module
    edited: nn.Module
    arguments: Arguments
    names: str
    build: Callable[[], nn.Module]
    operations: Sequence[Operation]
    new: frozenset[str] = frozenset()
    kept: Mapping[str, str] | None = None
    loss: Loss | None = None

    def again(self) -> Case:
        """Copy both networks, so that a check may change them."""
        return replace(self, original=copy.deepcopy(self.original), edited=copy.deepcopy(self.edited))

    def added(self) -> dict[str, nn.Module]:
        """The modules of the edited network that the original has not, or has as another class."""
        before = {name: type(module) for name, module in self.original.named_modules()}
        return {name: module for name, module in self.edited.named_modules() if before.get(name) is not type(module)}


def run(model: nn.Module, arguments: Arguments, seed: int = 0) -> list[torch.Tensor]:
    """Return the tensors of a forward's output, run under a seed and without gradients."""
    args, kwargs = copied(arguments)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = model(*args, **kwargs)
    return tensors_in(output)


def try_run(model: nn.Module, arguments: Arguments, seed: int = 0) -> list[torch.Tensor] | None:
    """Run a network; None if it does not take these arguments."""
    try:
        return run(model, arguments, seed)
    except Exception:  # the author's network may raise anything
        return None


def tensors_in(output: Any) -> list[torch.Tensor]:
    """List the tensors of an output."""
    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def copied(arguments: Arguments) -> Arguments:
    """Copy tensors, so that a network that writes into its input changes only the copy."""
    return mapped(arguments, lambda tensor: tensor.clone())


def mapped(arguments: Arguments, function: Callable[[torch.Tensor], torch.Tensor]) -> Arguments:
    """Apply a function to every tensor of a forward's arguments."""
    result: Arguments = _pytree.tree_map(
        lambda leaf: function(leaf) if isinstance(leaf, torch.Tensor) else leaf, arguments
    )
    return result


def batch_of(arguments: Arguments) -> int | None:
    """The number of samples, if every tensor has as many rows; None if that is not clear."""
    tensors = tensors_in(arguments)
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
    plain = all(
        isinstance(value, torch.Tensor) for value in (*arguments[0], *arguments[1].values()) if not _flag(value)
    )
    return sizes.pop() if len(sizes) == 1 and plain and 0 not in sizes else None


def same(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """Whether two outputs are equal to the bit; NaN equals NaN."""
    return len(actual) == len(expected) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())
        for a, b in zip(actual, expected, strict=True)
    )


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are equal except for rounding."""
    if actual.shape != expected.shape:
        return False
    if not actual.is_floating_point():
        return torch.equal(actual, expected)
    scale = expected.nan_to_num().abs().max().item() if expected.numel() else 0.0
    return torch.allclose(actual, expected, rtol=1e-3, atol=1e-3 * scale + 1e-6, equal_nan=True)


def few(names: list[str]) -> str:
    """Show the first few names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
