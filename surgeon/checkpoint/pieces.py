"""Describe the contents of an artifact, and the order in which its tensors are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from surgeon.checkpoint.companions import Companion
from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.file_writer import Progress, Writer
from surgeon.errors import OutputError

LINE = 64
"""The bytes of a cache line, which is also the alignment of torch's allocator."""


@dataclass(frozen=True)
class Piece:
    """Describe one tensor to write: its byte ranges in source files, or a function that makes its values."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    stored: tuple[ByteRange, ...]
    """The byte ranges of its values, in order; empty if ``value`` makes them."""
    value: Callable[[], torch.Tensor]

    def __post_init__(self) -> None:
        if self.stored and (available := sum(span.length for span in self.stored)) != self.nbytes:
            raise ValueError(f"{self.name} has {self.nbytes} bytes, and {available} in its source")


@dataclass(frozen=True)
class Contents:
    """The contents of an artifact.

    Attributes:
        pieces: The tensors in order; a tied tensor occurs once.
        manifest: The content of ``surgeon.json``.
        recipe: The text of ``recipe.yaml``.
        config: The transformers config, if the result is a stock class.
        companions: Files beside the weights; a single file has none.
    """

    pieces: list[Piece]
    manifest: dict[str, Any]
    recipe: str
    config: dict[str, Any] | None = None
    companions: Sequence[Companion] = ()


def in_file_order(pieces: list[Piece]) -> list[Piece]:
    """Sort ``pieces`` by alignment and source, so that they are fast to write and can be mapped on loading.

    Tensors of whole cache lines, nearly all bytes of most networks, come first, so that each begins at a cache line.
    The others follow with wide elements first, so that each begins at a multiple of its element size. Within both
    groups stored tensors keep the order of their sources, so that neighbours are copied as one run, and computed
    tensors come last. File names do not matter, so a checkpoint gives the same bytes wherever it is.
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
    """Append the values of ``pieces`` without gaps: stored ones as byte ranges, computed ones one at a time."""
    for is_stored, group in groupby(pieces, key=lambda piece: bool(piece.stored)):
        if is_stored:
            writer.copy((span for piece in group for span in piece.stored), progress)
            continue
        for piece in group:
            writer.write(values_of(piece))
            if progress:
                progress(piece.nbytes)


def values_of(piece: Piece) -> memoryview:
    """Return the values of a computed piece as bytes in row-major order.

    Raises:
        OutputError: The value is not a dense tensor.
    """
    value = piece.value().detach()
    if value.layout is not torch.strided or value.is_quantized:
        kind = "a quantised" if value.is_quantized else "a sparse"
        raise OutputError(f"{piece.name} is {kind} tensor, which artifacts cannot hold", hint="make it dense")
    value = value.cpu().contiguous().resolve_conj().resolve_neg()
    return value.reshape(-1).view(torch.uint8).numpy().data
