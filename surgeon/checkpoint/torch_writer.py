"""Write files for ``torch.load`` tensor by tensor; ``torch.save`` needs all tensors in memory at once.

The file is a zip archive (https://docs.pytorch.org/docs/stable/notes/serialization.html): ``data.pkl``, a
pickle in which each storage is a persistent id, and one uncompressed record of bytes for each storage.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from surgeon.checkpoint.digests import RECORD as DIGEST
from surgeon.checkpoint.file_writer import Progress, Writer
from surgeon.checkpoint.pages import BUFFER
from surgeon.checkpoint.pieces import Piece, values_of

ROOT = "archive"
ALIGNMENT = 64
"""torch.save begins the bytes of a storage at a multiple of this."""
LOCAL_HEADER = 30
ZIP64_FIELD = 20
PADDING_FIELD = 4
PADDING_ID = b"FB"

# torch.save writes the classes of typed storages; newer dtypes have none, so it writes the dtype
TYPED = {
    torch.bool: "BoolStorage",
    torch.uint8: "ByteStorage",
    torch.int8: "CharStorage",
    torch.int16: "ShortStorage",
    torch.int32: "IntStorage",
    torch.int64: "LongStorage",
    torch.float16: "HalfStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.float32: "FloatStorage",
    torch.float64: "DoubleStorage",
    torch.complex64: "ComplexFloatStorage",
    torch.complex128: "ComplexDoubleStorage",
}


class _Tensor:
    """Stand in for a tensor in the pickle; each has its own storage."""

    def __init__(self, piece: Piece, key: str) -> None:
        self.piece = piece
        self.storage = _Storage(piece, key)

    def reduce(self) -> tuple[Any, ...]:
        """Return the call that builds the tensor on loading, with the functions that torch.save uses."""
        shape = self.piece.shape
        stride = torch.empty(shape, device="meta").stride()
        arguments: tuple[Any, ...] = (self.storage, 0, shape, stride, False, OrderedDict())
        if self.piece.dtype in TYPED:
            return torch._utils._rebuild_tensor_v2, arguments
        return torch._utils._rebuild_tensor_v3, (*arguments, self.piece.dtype)


class _Storage:
    def __init__(self, piece: Piece, key: str) -> None:
        self.piece = piece
        self.key = key

    def persistent_id(self) -> tuple[Any, ...]:
        dtype, size = self.piece.dtype, self.piece.nbytes
        if dtype in TYPED:
            return "storage", getattr(torch, TYPED[dtype]), self.key, "cpu", size // dtype.itemsize
        return "storage", torch.UntypedStorage, self.key, "cpu", size


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.persistent_id() if isinstance(obj, _Storage) else None

    def reducer_override(self, obj: Any) -> Any:
        return obj.reduce() if isinstance(obj, _Tensor) else NotImplemented


def write_state_dict(
    path: Path,
    names: list[str],
    pieces: list[Piece],
    aliases: dict[str, str],
    metadata: dict[str, Any],
    progress: Progress | None = None,
) -> None:
    """Write a bare state dict, for plain ``torch.load`` and ``load_state_dict``.

    Args:
        path: The file.
        names: The tensors, in the order of the state dict.
        pieces: The same tensors, in the order of the file.
        aliases: Other names of tied tensors.
        metadata: The state dict's ``_metadata``, where torch keeps the version numbers of modules.
        progress: Called with the number of bytes after each write.
    """
    tensors = {piece.name: _Tensor(piece, str(number)) for number, piece in enumerate(pieces)}
    state: OrderedDict[str, _Tensor] = OrderedDict((name, tensors[name]) for name in names)
    state.update((alias, tensors[name]) for alias, name in aliases.items())
    state._metadata = metadata  # type: ignore[attr-defined]
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump(state)
    with Writer(path) as writer, zipfile.ZipFile(writer, "w") as archive:  # type: ignore[call-overload]
        archive.writestr(_record(writer, "data.pkl", len(pickled.getvalue())), pickled.getvalue())
        archive.writestr(_record(writer, "byteorder", 0), sys.byteorder)
        stored = _Feed(writer.stream(span for piece in pieces for span in piece.stored))
        for number, piece in enumerate(pieces):
            record = _record(writer, f"data/{number}", piece.nbytes)
            with archive.open(record, "w", force_zip64=piece.nbytes > zipfile.ZIP64_LIMIT) as file:
                for data in stored.take(piece.nbytes) if piece.stored else _portions(values_of(piece)):
                    file.write(data)
                    if progress:
                        progress(len(data))
        archive.writestr(_record(writer, "version", 0), "3\n")
        digest = writer.digest_so_far()
        archive.writestr(_record(writer, DIGEST, 0), digest)


class _Feed:
    """Cut a stream of portions into portions of other sizes."""

    def __init__(self, portions: Iterator[memoryview]) -> None:
        self._portions = portions
        self._rest = memoryview(b"")

    def take(self, count: int) -> Iterator[memoryview]:
        while count:
            if not self._rest:
                self._rest = next(self._portions)
            portion, self._rest = self._rest[:count], self._rest[count:]
            count -= len(portion)
            yield portion


def _portions(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + BUFFER] for at in range(0, len(view), BUFFER))


def _record(writer: Writer, name: str, size: int) -> zipfile.ZipInfo:
    """Make a record whose bytes begin at a multiple of ``ALIGNMENT``, as in torch.save, so that they can be mapped."""
    record = zipfile.ZipInfo(f"{ROOT}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    header = LOCAL_HEADER + len(record.filename) + (ZIP64_FIELD if size > zipfile.ZIP64_LIMIT else 0)
    padding = -(writer.tell() + header + PADDING_FIELD) % ALIGNMENT
    record.extra = PADDING_ID + padding.to_bytes(2, "little") + bytes(padding)
    return record
