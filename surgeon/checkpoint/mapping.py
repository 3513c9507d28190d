"""Map tensors from their file: no copy, and shared between processes until written to.

A mapping is private: writes to a tensor go to new memory, page by page, and never to the file. The mapping stays valid
when the file is replaced by renaming or deleted, as surgeon and the Hugging Face libraries do. A file that is
*overwritten* in place changes the model. Many people call ``torch.save(model.state_dict(), path)`` on the path that the
model came from, so only safetensors are mapped; files of ``torch.save`` are read.
"""

from __future__ import annotations

import mmap
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from surgeon.checkpoint.contents import ByteRange, Checkpoint, Entry
from surgeon.checkpoint.safetensors import looks_like_safetensors


def mapped(checkpoint: Checkpoint) -> Checkpoint:
    """Return ``checkpoint`` with a :meth:`~Checkpoint.read` that maps tensors where it can.

    Names for the same bytes do not share memory: the first one read is mapped, the others are copied. A tensor whose
    offset is not a multiple of its element size is read.
    """
    maps = _Maps(checkpoint)
    entries = {
        name: replace(entry, bytes=None, load=partial(maps.load, entry)) if entry.bytes else entry
        for name, entry in checkpoint.entries.items()
    }
    return replace(checkpoint, entries=entries)


class _Maps:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._files: dict[Path, mmap.mmap | None] = {}
        self._taken: set[ByteRange] = set()

    def load(self, entry: Entry) -> torch.Tensor:
        span = entry.bytes
        assert span is not None  # mapped() passes only such entries
        file = self._file(span.path)
        fits = file is not None and span.offset + span.length <= len(file)
        if file is None or not fits or not span.length or span.offset % entry.dtype.itemsize or span in self._taken:
            return self.checkpoint.read(entry.name)
        self._taken.add(span)
        flat = torch.frombuffer(file, dtype=torch.uint8, count=span.length, offset=span.offset)
        return flat.view(entry.dtype).reshape(entry.shape)

    def _file(self, path: Path) -> mmap.mmap | None:
        if path not in self._files:
            self._files[path] = _map(path)
        return self._files[path]


def _map(path: Path) -> mmap.mmap | None:
    try:
        with path.open("rb") as file:
            if not looks_like_safetensors(file.read(16)):
                return None
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # not supported by the file system, or too large to map
        return None
