"""Open safetensors, single and sharded. The header is parsed here to know the byte range of each tensor.

Format: eight bytes with the length of the header, a JSON header (name → dtype, shape, data_offsets), then the values
without gaps (https://huggingface.co/docs/safetensors). The rules are those of the reference reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from surgeon.checkpoint.contents import ByteRange, Checkpoint, Entry, damage_at
from surgeon.checkpoint.jsonfiles import manifest_in, parse_object
from surgeon.errors import CheckpointError

HEADER_LIMIT = 100_000_000
"""The reference reader's limit on the length of a header."""

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


def looks_like_safetensors(head: bytes) -> bool:
    """Return whether a file begins with a plausible header length and a JSON object."""
    return len(head) > 8 and head[6:9] == b"\0\0{"


def open_safetensors(path: Path) -> Checkpoint:
    """Read the header of a ``.safetensors`` file.

    Raises:
        CheckpointError: The header is malformed or does not account for every byte of the file.
    """
    with damage_at(str(path)):
        header, start = _header(path)
        metadata = _metadata(header.pop("__metadata__", None))
        size = path.stat().st_size
        placed = [_entry(path, name, fact, start) for name, fact in header.items()]
        # by offset, then length: an empty tensor has the offset of the tensor after it
        placed.sort(key=lambda pair: (pair[1].offset, pair[1].length))
        end = start
        for entry, span in placed:
            if span.offset != end:
                kind = "overlaps another" if span.offset < end else "has a gap before it"
                raise CheckpointError(f"tensor '{entry.name}' {kind}")
            end += span.length
        if end != size:
            raise CheckpointError(f"its header describes {end} bytes, but the file has {size}")
        entries = {entry.name: entry for entry, _ in placed}
        aliases = _aliases(metadata, entries)
        for alias, name in aliases.items():
            twin = entries[name]
            entries[alias] = Entry(alias, twin.shape, twin.dtype, twin.bytes)
        manifest = manifest_in(metadata)
    return Checkpoint(str(path), "safetensors", entries, aliases=aliases, files=[path], manifest=manifest)


def open_index(path: Path, open_shard: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Read the shards that an index (``*.index.json``) names; ``open_shard`` opens each.

    Raises:
        CheckpointError: The index is malformed, a shard is missing, or a tensor is not in its shard.
    """
    with damage_at(str(path)):
        weight_map = parse_object(path.read_bytes()).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError("it is not an index of shards: it has no 'weight_map'")
        names: dict[str, list[str]] = {}
        for tensor, shard in weight_map.items():
            # an untrusted index may name files in its folder only
            if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
                raise CheckpointError(f"shard {shard!r} of '{tensor}' is not a file name")
            names.setdefault(shard, []).append(tensor)
        missing = [shard for shard in names if not (path.parent / shard).is_file()]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of its {len(names)} shards are missing: {', '.join(missing[:3])}",
                hint=f"put the missing files into {path.parent}",
            )
        checkpoint = Checkpoint(str(path), "", {}, files=[path])
        for shard, tensors in names.items():
            _add_shard(checkpoint, open_shard(path.parent / shard), set(tensors))
    return checkpoint


def open_shards(paths: Sequence[Path], open_shard: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Read shards without an index, in the given order; ``open_shard`` opens each.

    Raises:
        CheckpointError: A tensor is in two shards.
    """
    checkpoint = Checkpoint(str(paths[0].parent), "", {})
    for path in paths:
        part = open_shard(path)
        if twice := sorted(part.entries.keys() & checkpoint.entries.keys()):
            raise CheckpointError(
                f"{len(twice)} of its tensors are also in another shard: {', '.join(twice[:3])}",
                where=str(path),
                hint="the shards are of different models: copy or download them again, with their index",
            )
        _add_shard(checkpoint, part, set(part.entries))
    return checkpoint


def _add_shard(checkpoint: Checkpoint, part: Checkpoint, tensors: set[str]) -> None:
    absent = sorted(tensors - part.entries.keys())
    if absent:
        raise CheckpointError(
            f"{len(absent)} tensors that the index lists are missing: {', '.join(absent[:3])}",
            where=part.location,
            hint="index and shards are of different models: copy or download them again",
        )
    checkpoint.entries.update((name, entry) for name, entry in part.entries.items() if name in tensors)
    checkpoint.aliases.update((a, b) for a, b in part.aliases.items() if a in tensors and b in tensors)
    checkpoint.notes += part.notes
    checkpoint.files += part.files
    checkpoint.format = f"sharded {part.format}"
    if unlisted := len(part.entries.keys() - tensors):
        checkpoint.notes.append(f"{part.location}: {unlisted} tensors that the index does not list are left out")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if length > HEADER_LIMIT:
            raise CheckpointError(f"its header claims {length} bytes, more than the format allows")
        if length > size - 8:
            raise CheckpointError(f"it ends inside its header of {length} bytes")
        return parse_object(file.read(length), unique=True), 8 + length


def _entry(path: Path, name: str, fact: Any, start: int) -> tuple[Entry, ByteRange]:
    match fact:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [begin, end]}:
            numbers = [*shape, begin, end]
        case _:
            numbers = [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"tensor '{name}' is not described by dtype, shape and data_offsets")
    dtype = DTYPES.get(kind)
    if dtype is None:
        raise CheckpointError(
            f"tensor '{name}' has dtype {kind}, which torch does not have",
            hint=f"convert it to one of {', '.join(DTYPES)}",
        )
    if end - begin != prod(shape) * dtype.itemsize:
        raise CheckpointError(f"tensor '{name}' of {kind} {shape} does not fit {end - begin} bytes")
    span = ByteRange(path, start + begin, end - begin)
    return Entry(name, tuple(shape), dtype, span), span


def _metadata(value: Any) -> dict[str, str]:
    """Return the header's ``__metadata__``; like the reference reader, accept only a mapping of strings."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise CheckpointError("its '__metadata__' is not an object of strings")
    return value


def _aliases(metadata: dict[str, str], entries: dict[str, Entry]) -> dict[str, str]:
    """Return the tied names that ``safetensors.torch.save_model`` left out and noted in the metadata, alias → name."""
    return {alias: name for alias, name in metadata.items() if alias not in entries and name in entries}
