"""Whether a tensor is rows of others put together, asked of the code that makes it, without a value being read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from surgeon.checkpoint.contents import ByteRange, Entry
from surgeon.checkpoint.pages import PAGE

MISFIT = (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError)
"""What code that rearranges tensors raises over those that it is not for."""
MANY = 2**26
"""The rows from which on it is not asked."""


def runs_of(
    parts: Mapping[str, Entry], make: Callable[[Callable[[str], Tensor]], Tensor], shape: tuple[int, ...]
) -> tuple[ByteRange, ...]:
    """The runs of bytes, one behind the other, that a tensor is; empty if it is something else, or they are too short.

    Each row of the parts is stood for by a number of its own. These are put through ``make``, and what comes out says
    where each row comes from. What changes values gives numbers that stand for no row.

    Args:
        parts: The tensors that it is made from.
        make: Makes it, given what reads a part by its name.
        shape: Its shape.
    """
    width = _width(parts)
    counts = [prod(entry.shape) // max(width, 1) for entry in parts.values()]
    if not shape or len({entry.dtype for entry in parts.values()}) != 1 or not 0 < sum(counts) < MANY:
        return ()
    # they rise by steps without a pattern, so that no sum or product of them is likely to be another one
    numbers = torch.randint(1, 2**20, (sum(counts),), generator=torch.Generator().manual_seed(0)).cumsum(0)
    given = {
        name: rows.reshape(*entry.shape[:-1], -1)
        for (name, entry), rows in zip(parts.items(), torch.split(numbers, counts), strict=True)
    }
    try:
        made = make(given.__getitem__)
    except MISFIT:
        return ()
    columns = 1 if width > 1 else shape[-1]
    if made.dtype != numbers.dtype or made.shape != (*shape[:-1], columns) or columns * width != shape[-1]:
        return ()
    made = made.reshape(-1)
    rows = torch.searchsorted(numbers, made).clamp(max=len(numbers) - 1)
    return _runs(list(parts.values()), counts, rows, width) if torch.equal(numbers[rows], made) else ()


def _width(parts: Mapping[str, Entry]) -> int:
    """The elements of a row; 1 where vectors are among the parts, or rows of several lengths."""
    widths = {entry.shape[-1] if len(entry.shape) > 1 else 1 for entry in parts.values()}
    return widths.pop() if len(widths) == 1 else 1


def _runs(parts: list[Entry], counts: list[int], rows: Tensor, width: int) -> tuple[ByteRange, ...]:
    """Merge ``rows``, counted through all parts, into runs of bytes."""
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
