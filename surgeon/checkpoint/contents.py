"""Describe the contents of a checkpoint, and read single tensors of it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import prod
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surgeon.checkpoint.statedict import copies, main_part
from surgeon.errors import CheckpointError, suggest

AGAIN = "it is truncated or damaged: copy or download it again"
"""The hint for damage of unknown cause."""


@dataclass(frozen=True)
class ByteRange:
    """Consecutive bytes of a file: a contiguous tensor or some of its rows, row-major and little-endian."""

    path: Path
    offset: int
    length: int

    def part(self, start: int, length: int) -> ByteRange:
        """Return the range of ``length`` bytes that begins at byte ``start`` of this one."""
        return ByteRange(self.path, self.offset + start, length)


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: ByteRange | None = None
    """The bytes of its values; None if they are not one range (a strided view, a tensor in memory)."""
    load: Callable[[], Tensor] | None = field(default=None, repr=False, compare=False)
    """Makes the tensor (new, contiguous, on the CPU) if it is not stored. A meta tensor has neither."""
    find_runs: Callable[[], tuple[ByteRange, ...]] | None = field(default=None, repr=False, compare=False)
    """Returns the byte ranges of its values, in order, if they are several."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes when contiguous."""
        return prod(self.shape) * self.dtype.itemsize

    def stored(self) -> tuple[ByteRange, ...]:
        """Return the byte ranges of its values, in order; empty if the file does not store them so."""
        if self.bytes is not None:
            return (self.bytes,)
        return self.find_runs() if self.find_runs is not None else ()


@dataclass
class Checkpoint:
    """The tensors of a checkpoint by name, read on request, and the files that belong to them.

    ``entries`` are in the order of the file. A tied tensor is in ``entries`` under each name, and in ``aliases`` (alias
    → the first name).
    """

    location: str
    format: str
    entries: dict[str, Entry]
    notes: list[str] = field(default_factory=list)
    """What was detected and done while opening, one line each."""
    aliases: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    stamps: dict[Path, tuple[int, int, int, int]] = field(default_factory=dict, repr=False)
    """What ``files`` looked like when they were opened; see :mod:`surgeon.checkpoint.unchanged`."""
    folder: Path | None = None
    """The Hugging Face folder or surgeon artifact that the tensors belong to."""
    config: dict[str, Any] | None = None
    """The Hugging Face ``config.json`` in the same folder."""
    manifest: dict[str, Any] | None = None
    """The ``surgeon.json`` of an artifact."""
    module: Any = field(default=None, repr=False)
    """The pickled module, if the file holds one and its pickle was trusted."""

    def read(self, name: str) -> Tensor:
        """Read the tensor ``name`` into new memory: writable, contiguous, on the CPU.

        Reads the bytes of this tensor only.

        Raises:
            CheckpointError: The tensor does not exist or can no longer be read.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise CheckpointError(f"no tensor '{name}'", where=self.location, hint=suggest(name, self.entries))
        with damage_at(self.location, f"tensor '{name}' cannot be read"):
            if stored := entry.stored():
                return read_bytes(stored).view(entry.dtype).reshape(entry.shape)
            if entry.load is not None:
                return entry.load()
            raise CheckpointError(
                f"tensor '{name}' was saved from the meta device, without values",
                hint="save the model with its weights",
            )

    def fingerprint(self) -> str:
        """Compute a SHA-256 of names, shapes and dtypes, independent of their order."""
        facts = [[e.name, list(e.shape), str(e.dtype)] for e in self.entries.values()]
        return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()

    def prefix_candidates(self) -> list[str]:
        """List the prefixes that the network's names may have, shortest first: ``["", "model.", "model.backbone."]``.

        A candidate is shared by all names, apart from those of tensors used only in training (losses, metrics,
        projection heads). The names alone do not show whether ``model.`` comes from a wrapper or from the network (as
        in LlamaForCausalLM): match an architecture with :meth:`without_prefix` of each candidate, in order.

        Raises:
            CheckpointError: The checkpoint has two copies of the network (MoCo's ``encoder_q`` and ``encoder_k``).
        """
        candidates = [""]
        shapes = {name: entry.shape for name, entry in self.entries.items()}
        while part := main_part(shapes):
            candidates.append(f"{candidates[-1]}{part}.")
            shapes = {name[len(part) + 1 :]: shape for name, shape in shapes.items() if name.startswith(f"{part}.")}
        if twins := copies(shapes):
            labels = [candidates[-1] + part for part in twins]
            counts = [sum(name.startswith(f"{part}.") for name in shapes) for part in twins]
            listed = ", ".join(f"{label} ({count} tensors)" for label, count in zip(labels, counts, strict=True))
            raise CheckpointError(
                f"it holds the same network twice: {listed}",
                where=self.location,
                hint=f"choose one with --key, such as --key {labels[0]}",
            )
        return candidates

    def without_prefix(self, prefix: str) -> Checkpoint:
        """Remove ``prefix`` from the names, leave out tensors without it, and add a note."""
        if not prefix:
            return self
        names = {name: name.removeprefix(prefix) for name in self.entries if name.startswith(prefix)}
        if not names:
            raise CheckpointError(f"no tensor name begins with '{prefix}'", where=self.location)
        note = f"prefix '{prefix}' stripped from {len(names)} tensor names"
        if left_out := len(self.entries) - len(names):
            note += f"; {left_out} tensors outside it are left out"
        return self.renamed(names, note)

    def renamed(self, names: Mapping[str, str], note: str) -> Checkpoint:
        """Return the tensors in ``names`` (old → new) under their new names, with ``note`` added."""
        entries = {new: replace(self.entries[old], name=new) for old, new in names.items()}
        canonical: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for old, new in names.items():
            first = canonical.setdefault(self.aliases.get(old, old), new)
            if first != new:
                aliases[new] = first
        return replace(self, entries=entries, aliases=aliases, notes=[*self.notes, note])


def memory_checkpoint(tensors: Mapping[str, Tensor], location: str = "memory") -> Checkpoint:
    """Make a checkpoint from tensors in memory; reading one copies it.

    Args:
        tensors: A ``state_dict``; tied tensors (the same view of one storage) become aliases.
        location: What messages call it.
    """
    entries = {name: memory_entry(name, tensor) for name, tensor in tensors.items()}
    views = {
        name: (t.untyped_storage().data_ptr(), t.storage_offset(), t.dtype, t.shape, t.stride())
        for name, t in tensors.items()
        if t.layout is torch.strided and not t.is_meta and t.numel()
    }
    return Checkpoint(location, "memory", entries, aliases=aliases_of(views))


def memory_entry(name: str, tensor: Tensor) -> Entry:
    """Make an entry that reads a copy of ``tensor``."""

    def load() -> Tensor:
        copied = tensor.detach().cpu().clone()
        if copied.layout is not torch.strided:
            return copied
        return copied.contiguous().resolve_conj().resolve_neg()

    return Entry(name, tuple(tensor.shape), tensor.dtype, load=None if tensor.is_meta else load)


def aliases_of(views: Mapping[str, Hashable]) -> dict[str, str]:
    """Map alias → first name, for names with the same view of memory or of a file."""
    first: dict[Hashable, str] = {}
    canonical = {name: first.setdefault(view, name) for name, view in views.items()}
    return {name: twin for name, twin in canonical.items() if name != twin}


def read_bytes(spans: Sequence[ByteRange]) -> Tensor:
    """Read ``spans`` one after the other into a new uint8 tensor.

    Raises:
        CheckpointError: A file is too short or cannot be read.
    """
    buffer = torch.empty(sum(span.length for span in spans), dtype=torch.uint8)
    view, position = memoryview(buffer.numpy().data), 0
    for path, group in groupby(spans, key=attrgetter("path")):
        with damage_at(str(path), "cannot be read"), path.open("rb", buffering=0) as file:
            for span in group:
                _fill(view[position : position + span.length], file, span)
                position += span.length
    return buffer


def _fill(view: memoryview, file: io.RawIOBase, span: ByteRange) -> None:
    file.seek(span.offset)
    position = 0
    while position < span.length:
        count = file.readinto(view[position:])
        if not count:
            raise CheckpointError(
                f"ends at byte {span.offset + position}, {span.length - position} bytes early",
                where=str(span.path),
                hint="it changed after it was opened; copy or download it again",
            )
        position += count


@contextmanager
def damage_at(where: str, what: str = "damaged") -> Iterator[None]:
    """Turn any exception that a library raises on a damaged file into a :class:`CheckpointError`.

    zipfile, pickle, json, struct and torch raise some twenty kinds of exception on damaged bytes, so all are caught.
    """
    try:
        yield
    except CheckpointError as error:
        error.message = error.message.replace("\n", "\\n")  # names come from the file
        error.hint = error.hint or AGAIN
        if not error.where:
            error.at(where)
        raise
    except OSError as error:
        hint = "see that it is there and may be read; if so, copy or download it again"
        raise CheckpointError(f"{what}: {error.strerror or error}", where=where, hint=hint) from error
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"{what}: {reason}", where=where, hint=AGAIN) from error
