"""Write safetensors with a padded header, so that most kept bytes keep their offset in the page."""

from __future__ import annotations

import json
import os
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

from surgeon.checkpoint.digests import BLANK, KEY, place_in
from surgeon.checkpoint.file_writer import Progress, Writer
from surgeon.checkpoint.pages import PAGE
from surgeon.checkpoint.pieces import LINE, Piece, write_pieces
from surgeon.checkpoint.safetensors import DTYPES, HEADER_LIMIT
from surgeon.errors import OutputError

NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH = 8
"""The size of the header's length, in bytes."""
STEP = 16
"""The values begin at a multiple of this, so that kernels treat mapped tensors like allocated ones."""


def write_safetensors(
    path: Path,
    pieces: list[Piece],
    metadata: dict[str, str],
    progress: Progress | None = None,
    *,
    seal: bool = False,
) -> str:
    """Write ``pieces`` in their order.

    Args:
        path: The file.
        pieces: Its tensors.
        metadata: The header's ``__metadata__``.
        progress: Called with the number of bytes after each write.
        seal: Whether to put the digest of the file into its metadata.

    Returns:
        The digest of the file; for a sealed file, computed with zeros in its place.

    Raises:
        OutputError: Safetensors does not support one of the dtypes, or the header is too long.
    """
    header: dict[str, Any] = {"__metadata__": {**metadata, KEY: BLANK} if seal else metadata}
    offset = 0
    for piece in pieces:
        if piece.dtype not in NAMES:
            raise OutputError(
                f"{piece.name}: safetensors cannot hold {piece.dtype}", hint="write a .pt file: -o out.pt"
            )
        header[piece.name] = {
            "dtype": NAMES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [offset, offset + piece.nbytes],
        }
        offset += piece.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * _padding(LENGTH + len(text), pieces)
    if len(text) > HEADER_LIMIT:
        raise OutputError(
            f"{path.name}: its header would have {len(text)} bytes, more than safetensors allows ({HEADER_LIMIT})",
            hint="write a folder: -o out",
        )
    with Writer(path) as writer:
        writer.write(len(text).to_bytes(LENGTH, "little") + text)
        write_pieces(writer, pieces, progress)
    if seal:
        with path.open("r+b") as file:
            file.seek(LENGTH + place_in(text))
            file.write(writer.digest.encode())
            file.flush()
            os.fsync(file.fileno())
    return writer.digest


def _padding(length: int, pieces: list[Piece]) -> int:
    """Return how many spaces to append so that most stored bytes keep the offset in the page of their source."""
    shifts: Counter[int] = Counter()
    offset = 0
    for piece in pieces:
        place = offset
        for span in piece.stored:
            shifts[(span.offset - place) % PAGE] += span.length
            place += span.length
        offset += piece.nbytes
    shift, _ = max(shifts.items(), key=itemgetter(1), default=(1, 0))
    return (shift - length) % PAGE if shift % STEP == 0 else -length % LINE
