"""``.pt``, ``.pth`` and ``.bin`` as ``torch.save`` writes them, read lazily where the format allows it.

Since PyTorch 1.6 such a file is a zip archive: ``NAME/data.pkl`` and one uncompressed record for each
storage, so a tensor is a range of the file's bytes. Older ("legacy") files are a stream of pickles and are
loaded whole.
"""

from __future__ import annotations

import sys
import warnings
import zipfile
from collections.abc import Callable, Hashable
from pathlib import Path
from struct import unpack_from
from typing import Any

import torch
from torch import Tensor

from surgeon.checkpoint.contents import (
    ByteRange,
    Checkpoint,
    Entry,
    aliases_of,
    damage_at,
    memory_checkpoint,
    read_bytes,
)
from surgeon.checkpoint.jsonfiles import manifest_in
from surgeon.checkpoint.pickles import unpickle
from surgeon.checkpoint.statedict import find_state_dict, is_plain
from surgeon.errors import CheckpointError

PICKLE_LIMIT = 1 << 30
"""The longest ``data.pkl`` that is unpickled; those of real checkpoints take some hundred bytes a tensor."""

LOCAL_HEADER = 30
"""The fixed part of a zip record's own header, before its name and extra field."""


class NotLazyError(Exception):
    """A file whose tensors cannot be placed in it without reading them."""


def open_legacy(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Load a file from before PyTorch 1.6, or one saved without the zip archive, whole."""
    return _open_whole(path, "pytorch legacy", trust_pickle, key, "no zip archive (PyTorch < 1.6)")


def open_zip(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open a zip archive of ``torch.save`` without reading a weight.

    Raises:
        CheckpointError: Truncated or damaged, another kind of archive, an unsafe pickle that is not trusted,
            no state dict, or several and no ``key``.
    """
    with damage_at(str(path)):
        try:
            places = _storages(path)
            content = _unpickle_without_values(path)
            tensors, notes = find_state_dict(content, key)
            entries = {name: _entry(path, name, tensor, places) for name, tensor in tensors.items()}
        except NotLazyError as reason:
            return _open_whole(path, "pytorch zip", trust_pickle, key, str(reason))
    views: dict[str, Hashable] = {
        name: (_start(t), t.storage_offset(), t.dtype, t.shape, t.stride()) for name, t in tensors.items() if t.numel()
    }
    return Checkpoint(
        str(path),
        "pytorch zip",
        entries,
        notes,
        aliases=aliases_of(views),
        files=[path],
        manifest=manifest_in(getattr(content, "_metadata", None)),
    )


def _open_whole(path: Path, form: str, trust_pickle: bool, key: str | None, reason: str) -> Checkpoint:
    content, notes = unpickle(path, trust_pickle=trust_pickle)
    with damage_at(str(path)):
        tensors, found = find_state_dict(content, key)
        checkpoint = memory_checkpoint(tensors, str(path))
    checkpoint.format = form
    checkpoint.files = [path]
    checkpoint.notes = [f"loaded whole into memory: {reason}", *notes, *found]
    checkpoint.manifest = manifest_in(getattr(content, "_metadata", None))
    return checkpoint


def _unpickle_without_values(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # torch leaves the place of each storage in the file on the meta storages that it makes. A
            # FakeTensorMode would too, but takes a second and a half to import and is seven times slower.
            with path.open("rb") as file:  # given a path, torch.load would judge it by its extension
                return torch.load(file, map_location="meta", weights_only=True, mmap=False)
        except Exception as error:
            # Unsafe, damaged, or without a meta form (sparse, quantized): loading it whole tells which.
            raise NotLazyError("it holds sparse, quantized or pickled objects") from error


def _storages(path: Path) -> dict[int, int]:
    """Where each storage begins in the file → its length, from the archive's own directory."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            root = _root([record.filename for record in records])
            order = f"{root}/byteorder"
            native = order not in archive.namelist() or archive.read(order) == sys.byteorder.encode()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"a truncated or damaged zip archive ({error})") from error
    storages: dict[int, int] = {}
    keys: list[int] = []
    with path.open("rb", buffering=0) as file:
        for record in sorted(records, key=lambda record: record.header_offset):
            if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
                raise CheckpointError(
                    f"its record {record.filename} is compressed or encrypted",
                    hint="unpack it and zip it again without compression (zip -0 -r)",
                )
            if record.filename == f"{root}/data.pkl" and record.file_size > PICKLE_LIMIT:
                raise CheckpointError(f"its data.pkl claims {record.file_size} bytes")
            folder, _, key = record.filename.rpartition("/")
            if folder != f"{root}/data":
                continue
            file.seek(record.header_offset)
            header = file.read(LOCAL_HEADER)
            if header[:4] != b"PK\3\4" or len(header) < LOCAL_HEADER:
                raise CheckpointError(f"its record {record.filename} is not where the archive says")
            start = record.header_offset + LOCAL_HEADER + sum(unpack_from("<HH", header, 26))
            if start + record.file_size > size:
                raise CheckpointError(f"its record {record.filename} reaches beyond the end of the file")
            storages[start] = record.file_size
            keys.append(int(key) if key.isdecimal() else -1)
    # torch computes the places of records from their numbers, which is wrong where those were shuffled.
    if keys != sorted(keys):
        raise NotLazyError("its records are not in the order of torch.save")
    if not native:
        raise NotLazyError("it was written on a machine of the other byte order")
    return storages


def _root(names: list[str]) -> str:
    """The folder in the archive that everything lies in, as torch takes it; other archives are refused."""
    below = {name.partition("/")[2] for name in names}
    every = below | set(names)
    if "constants.pkl" in every or any(name.startswith("code/") for name in below):
        raise CheckpointError(
            "a TorchScript archive: its network is compiled code, which cannot be edited",
            hint="torch.save(torch.jit.load(path).state_dict(), 'weights.pt') and use that, with --arch",
        )
    if "archive_format" in every or "serialized_exported_program.json" in every:
        raise CheckpointError(
            "a .pt2 archive of torch.export: its network is a graph, not modules",
            hint="torch.save(torch.export.load(path).state_dict, 'weights.pt') and use that, with --arch",
        )
    if ".data/extern_modules" in every:
        raise CheckpointError(
            "a torch.package archive: it holds code",
            hint="torch.save(model.state_dict(), 'weights.pt') where it can be imported, then use weights.pt",
        )
    root = names[0].partition("/")[0] if names else ""
    if f"{root}/data.pkl" not in names:
        first = ", ".join(sorted(names)[:3]) or "nothing"
        hint = "unpack it, if the checkpoint is inside; torch.save a dictionary of tensors, if they are arrays"
        raise CheckpointError(f"a zip archive, but not one of torch.save: it holds {first}", hint=hint)
    if len({name.casefold() for name in names}) < len(names):
        # torch and zipfile would each take another one of the two.
        raise CheckpointError("two of its records have the same name")
    return root


def _start(tensor: Tensor) -> int | None:
    start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    return start if isinstance(start, int) else None


def _entry(path: Path, name: str, tensor: Tensor, places: dict[int, int]) -> Entry:
    shape = tuple(tensor.shape)
    if not is_plain(tensor):
        raise NotLazyError(f"'{name}' is not a plain dense tensor")
    start = _start(tensor)
    if not tensor.numel():
        return Entry(name, shape, tensor.dtype, ByteRange(path, start or 0, 0))
    if start is None or start not in places:
        raise NotLazyError("its records are not where torch.save puts them")
    item = tensor.dtype.itemsize
    begin = int(tensor.storage_offset()) * item
    reach = sum((count - 1) * stride for count, stride in zip(shape, tensor.stride(), strict=True)) + 1
    if begin + reach * item > places[start]:
        raise CheckpointError(f"tensor '{name}' reaches beyond its storage")
    if tensor.is_contiguous():
        return Entry(name, shape, tensor.dtype, ByteRange(path, start + begin, reach * item))
    span = ByteRange(path, start + begin, reach * item)
    return Entry(name, shape, tensor.dtype, load=_view(span, tensor.dtype, shape, tensor.stride()))


def _view(span: ByteRange, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> Callable[[], Tensor]:
    def load() -> Tensor:
        run = read_bytes([span]).view(dtype)
        return run.as_strided(shape, stride).clone(memory_format=torch.contiguous_format)

    return load
