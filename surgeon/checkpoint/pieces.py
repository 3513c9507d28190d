"""What an artifact is made of, and the order in which its tensors are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from surgeon.checkpoint.companions import Companion
from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.copying import Progress, Writer
from surgeon.errors import OutputError

LINE = 64
"""The bytes of a cache line, and what torch aligns its own memory to."""


@dataclass(frozen=True)
class Piece:
    """One tensor to be written: its places in source files, or a way to make its values."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    stored: tuple[ByteRange, ...]
    """The runs of bytes that its values are, one behind the other; empty where they have to be made."""
    value: Callable[[], torch.Tensor]

    def __post_init__(self) -> None:
        if self.stored and (found := sum(span.length for span in self.stored)) != self.nbytes:
            raise ValueError(f"{self.name} has {self.nbytes} bytes, and {found} in its source")


@dataclass(frozen=True)
class Contents:
    """Everything that an artifact holds.

    Attributes:
        pieces: The tensors, in order, a tied one once.
        manifest: ``surgeon.json``.
        recipe: ``recipe.yaml``.
        config: A transformers config, where the result is a stock class.
        companions: What belongs beside the weights; a single file does not hold it.
    """

    pieces: list[Piece]
    manifest: dict[str, Any]
    recipe: str
    config: dict[str, Any] | None = None
    companions: Sequence[Companion] = ()


def in_file_order(pieces: list[Piece]) -> list[Piece]:
    """``pieces`` in the order in which they are best written, and mapped when they are loaded.

    First those of a whole number of cache lines, which is nearly all bytes of nearly every network, so that
    each begins at one; then the others, wide elements first, so that each begins at a multiple of its element's
    size. Within either, stored ones stand as in their sources, so that neighbours are copied as one run, and
    those that have to be made come last. The rule looks at no path, so that a checkpoint gives the same bytes
    wherever it lies.
    """
    sources: dict[object, int] = {}
    for piece in pieces:
        if piece.stored:
            sources.setdefault(piece.stored[0].path, len(sources))

    def key(piece: Piece) -> tuple[int, int, int]:
        width = piece.dtype.itemsize if piece.nbytes % LINE else LINE
        if not piece.stored:
            return -width, len(sources), 0
        return -width, sources[piece.stored[0].path], piece.stored[0].offset

    return sorted(pieces, key=key)


def write_pieces(writer: Writer, pieces: list[Piece], progress: Progress | None = None) -> None:
    """Append the values of ``pieces`` without a gap: stored ones as bytes, the others one at a time."""
    for is_stored, group in groupby(pieces, key=lambda piece: bool(piece.stored)):
        if is_stored:
            writer.copy((span for piece in group for span in piece.stored), progress)
            continue
        for piece in group:
            writer.write(values_of(piece))
            if progress:
                progress(piece.nbytes)


def values_of(piece: Piece) -> memoryview:
    """The values of a piece that has to be made, as bytes in row-major order.

    Raises:
        OutputError: It is no dense tensor.
    """
    value = piece.value().detach()
    if value.layout is not torch.strided or value.is_quantized:
        what = "a quantised" if value.is_quantized else "a sparse"
        raise OutputError(f"{piece.name} is {what} tensor, which no artifact can hold", hint="make it dense")
    value = value.cpu().contiguous().resolve_conj().resolve_neg()
    return value.reshape(-1).view(torch.uint8).numpy().data
