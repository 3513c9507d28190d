"""Find out whether a conversion only moves rows of tensors, by running it on row numbers instead of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from surgeon.checkpoint.contents import ByteRange, Entry
from surgeon.checkpoint.pages import PAGE

MISFIT = (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError)
"""Exceptions of conversions for tensors that they do not apply to."""
MANY = 2**26
"""The row count from which on the conversion is not examined."""
_MOVES = frozenset(
    getattr(torch.ops.aten, name)
    for name in (
        *("stack", "cat", "split", "split_with_sizes", "unbind", "slice", "select"),
        *("view", "_unsafe_view", "unsqueeze", "squeeze", "permute", "transpose", "clone", "alias", "detach"),
    )
)
"""Operations that do not change rows, as long as the last dimension keeps its size."""


def meta_of(entry: Entry) -> Tensor:
    """Make a tensor of an entry's shape and dtype without values."""
    return torch.empty(entry.shape, dtype=entry.dtype, device="meta")


def runs_of(
    parts: Mapping[str, Entry], make: Callable[[Callable[[str], Tensor]], Tensor], shape: tuple[int, ...]
) -> tuple[ByteRange, ...]:
    """Return the byte ranges that make up a converted tensor; empty if it is not made of rows, or they are too short.

    Each row of the parts is represented by a unique number. ``make`` is run on these numbers, and its result shows
    where each row comes from. If it changes values, the result has other numbers. If it moves values within rows, which
    the numbers do not show, :class:`_Watch` sees operations other than those in :data:`_MOVES`.

    Args:
        parts: The tensors that it is made from.
        make: Makes it from a function that reads a part by name.
        shape: Its shape.
    """
    width = _width(parts)
    counts = [prod(entry.shape) // max(width, 1) for entry in parts.values()]
    if not shape or len({entry.dtype for entry in parts.values()}) != 1 or not 0 < sum(counts) < MANY:
        return ()
    if width > 1 and not _keeps_rows(parts, make, width):
        return ()
    # irregular steps, so that a sum or product of numbers is unlikely to be another number
    numbers = torch.randint(1, 2**20, (sum(counts),), generator=torch.Generator().manual_seed(0)).cumsum(0)
    numbered = {
        name: rows.reshape(*entry.shape[:-1], -1)
        for (name, entry), rows in zip(parts.items(), torch.split(numbers, counts), strict=True)
    }
    try:
        converted = make(numbered.__getitem__)
    except MISFIT:
        return ()
    columns = 1 if width > 1 else shape[-1]
    if converted.dtype != numbers.dtype or converted.shape != (*shape[:-1], columns) or columns * width != shape[-1]:
        return ()
    converted = converted.reshape(-1)
    rows = torch.searchsorted(numbers, converted).clamp(max=len(numbers) - 1)
    return _runs(list(parts.values()), counts, rows, width) if torch.equal(numbers[rows], converted) else ()


def _keeps_rows(parts: Mapping[str, Entry], make: Callable[[Callable[[str], Tensor]], Tensor], width: int) -> bool:
    """Return whether ``make`` leaves rows unchanged."""
    skeletons = {name: meta_of(entry) for name, entry in parts.items()}
    watched = _Watch(width)
    try:
        with watched:
            make(skeletons.__getitem__)
    except MISFIT:
        return False
    return watched.whole


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record whether all operations are in :data:`_MOVES` and keep the width of rows."""

    def __init__(self, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.width = width
        self.whole = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        alike = all(tensor.shape[-1:] == (self.width,) for tensor in tensors)
        self.whole = self.whole and alike and func.overloadpacket in _MOVES
        return result


def _width(parts: Mapping[str, Entry]) -> int:
    """Return the number of elements in a row; 1 if there are vectors, or rows of several lengths."""
    widths = {entry.shape[-1] if len(entry.shape) > 1 else 1 for entry in parts.values()}
    return widths.pop() if len(widths) == 1 else 1


def _runs(parts: list[Entry], counts: list[int], rows: Tensor, width: int) -> tuple[ByteRange, ...]:
    """Merge ``rows``, counted through all parts, into byte ranges."""
    starts = torch.tensor([0, *counts]).cumsum(0)
    owners = torch.searchsorted(starts, rows, right=True) - 1
    breaks = ((rows.diff() != 1) | (owners.diff() != 0)).nonzero().flatten() + 1
    begins = [0, *breaks.tolist()]
    unit = width * parts[0].dtype.itemsize
    if len(rows) * unit < len(begins) * PAGE:
        return ()
    runs = []
    for begin, end in pairwise([*begins, len(rows)]):
        owner = int(owners[begin])
        place = parts[owner].bytes
        if place is None:
            return ()
        runs.append(place.part((int(rows[begin]) - int(starts[owner])) * unit, (end - begin) * unit))
    return tuple(runs)
