"""Tensors that are mapped from their file: ready at once, and shared between processes until written to.

A mapping is private: what is written to a tensor goes to memory of its own, page by page, and never to the
file. It outlives the file's name, so an artifact may be replaced or deleted under a model that came from it, as
surgeon and the Hugging Face libraries do it, by renaming. A file that is *overwritten* in place changes under
the model. ``torch.save(model.state_dict(), path)`` to where the model came from is a habit of many, so only
safetensors are mapped; what ``torch.save`` wrote is read.
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
    """``checkpoint``, whose :meth:`~Checkpoint.read` maps a tensor instead of reading it, where it can.

    Names that stand for the same bytes of the file do not share memory: the first to be read is mapped, the
    others are copies. A tensor that does not begin at a multiple of its element's size is read.
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
        assert span is not None  # mapped() has seen to it
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
    except (OSError, ValueError):  # a file system that cannot, or more than the machine would promise memory for
        return None
