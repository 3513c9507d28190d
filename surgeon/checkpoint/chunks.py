"""Read a tensor in pieces, so that memory use does not depend on its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from surgeon.checkpoint.contents import ByteRange, Checkpoint, damage_at, read_bytes


def read_chunks(checkpoint: Checkpoint, name: str, elements: int) -> Iterator[Tensor]:
    """Read the tensor ``name`` as flat pieces of at most ``elements`` elements, in row-major order.

    A tensor that is not stored as runs of bytes (a strided view, a converted tensor) is read whole and then split.

    Raises:
        CheckpointError: The tensor does not exist, has no values, or can no longer be read.
    """
    entry = checkpoint.entries.get(name)
    spans = entry.stored() if entry is not None else ()
    if entry is None or not spans:
        yield from split(checkpoint.read(name), elements)
        return
    step = elements * entry.dtype.itemsize
    for start in range(0, entry.nbytes, step):
        with damage_at(checkpoint.location, f"tensor '{name}' cannot be read"):
            piece = read_bytes(_slice(spans, start, min(step, entry.nbytes - start))).view(entry.dtype)
        yield piece


def split(tensor: Tensor, elements: int) -> Iterator[Tensor]:
    """Split a tensor in memory into flat pieces on the CPU, of at most ``elements`` elements each."""
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    flat = dense.reshape(-1)
    for start in range(0, flat.numel(), elements):
        yield flat[start : start + elements].cpu()


def _slice(spans: Sequence[ByteRange], start: int, length: int) -> list[ByteRange]:
    """Return the byte ranges of ``length`` bytes from ``start`` on, in the concatenation of ``spans``."""
    parts, position = [], 0
    for span in spans:
        begin, end = max(start, position), min(start + length, position + span.length)
        if begin < end:
            parts.append(span.part(begin - position, end - begin))
        position += span.length
    return parts
