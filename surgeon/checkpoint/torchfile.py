"""Open ``.pt``, ``.pth`` and ``.bin`` files of ``torch.save``, lazily where the format allows it.

Since PyTorch 1.6 such a file is a zip archive: ``NAME/data.pkl`` and one uncompressed record for each
storage, so a tensor is a range of the file's bytes. Older ("legacy") files are a stream of pickles and are
loaded whole.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import Any

import torch
from torch import Tensor
from torch.storage import TypedStorage

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
from surgeon.checkpoint.pickles import check_legacy, unpickle, unpickle_tensors
from surgeon.checkpoint.statedict import find_state_dict, is_plain
from surgeon.errors import CheckpointError

PICKLE_LIMIT = 1 << 30
"""The longest ``data.pkl`` to unpickle; real checkpoints need some hundred bytes per tensor."""

LOCAL_HEADER = 30
"""The fixed part of a zip record's header, before its name and extra field."""

DIRECTORY = 0x10
"""The MS-DOS attribute of a folder in a zip archive."""

EXPANSION = 16
"""A tensor, such as an expanded view, may take this many times the size of its file in memory …"""

EXPANSION_FLOOR = 64 << 20
"""… or this many bytes, if that is more."""


class NotLazyError(Exception):
    """Raised for a file whose tensors cannot be located without loading it."""


def open_legacy(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Load a whole file from before PyTorch 1.6, or one saved without the zip archive."""
    with damage_at(str(path)):
        check_legacy(path)
    return _open_whole(path, "pytorch legacy", trust_pickle, key, "not a zip archive (PyTorch < 1.6)")


def open_zip(path: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open a zip archive of ``torch.save`` without reading its tensors.

    Raises:
        CheckpointError: The archive is truncated, damaged or of another kind, its pickle is unsafe and not trusted, or
            it has no state dict, or several and no ``key`` selects one.
    """
    with damage_at(str(path)):
        try:
            archive = _open_archive(path)
            if archive.byte_order != sys.byteorder:
                raise NotLazyError("it was written on a machine of the other byte order")
            content = _unpickle_without_values(archive)
            state, notes = find_state_dict(content, key)
            tensors = state.tensors
            entries = {name: _entry(name, tensor, archive) for name, tensor in tensors.items()}
        except NotLazyError as reason:
            return _open_whole(path, "pytorch zip", trust_pickle, key, str(reason))
    views: dict[str, Hashable] = {
        name: (_record(t), t.storage_offset(), t.dtype, t.shape, t.stride()) for name, t in tensors.items() if t.numel()
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
        state, chosen = find_state_dict(content, key)
        tensors = state.tensors
        size = path.stat().st_size
        for name, tensor in tensors.items():
            if tensor.is_quantized:
                raise CheckpointError(
                    f"tensor '{name}' is quantized ({tensor.dtype}), and surgeon edits plain values only",
                    hint="save the state_dict() from before quantization, or one whose tensors are dequantize()d",
                )
            _check_expansion(name, tensor, size)
        checkpoint = memory_checkpoint(tensors, str(path))
    checkpoint.format = form
    checkpoint.files = [path]
    checkpoint.notes = [f"loaded whole into memory: {reason}", *notes, *chosen]
    checkpoint.manifest = manifest_in(getattr(content, "_metadata", None))
    checkpoint.module = state.module
    return checkpoint


class _Storages:
    """Make the meta storage for each persistent id of a pickle, and record which archive record it is.

    The reader of ``torch.load`` computes the offsets of records from their numbers, so it confuses records in another
    order. Here a record is looked up by name.
    """

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._made: dict[str, TypedStorage] = {}

    def __call__(self, claim: Any) -> TypedStorage:
        """Make the storage for a persistent id ``("storage", class, key, device, count)``."""
        _, kind, key, _, count = claim
        storage = self._made.get(key)
        if storage is not None:
            return storage
        dtype = torch.uint8 if kind is torch.UntypedStorage else kind.dtype
        record = f"{self._archive.root}/data/{key}"
        size = count * dtype.itemsize
        place = self._archive.records.get(record)
        if place is None:
            raise CheckpointError(f"its pickle names the record {record}, which the archive lacks")
        if place.length != size:
            raise CheckpointError(
                f"its record {record} has {place.length} bytes, not the {size} that its pickle claims"
            )
        untyped = torch.UntypedStorage(size, device="meta")  # type: ignore[no-untyped-call]
        untyped.record = record  # type: ignore[attr-defined]
        storage = TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
        if size:  # like torch.load: the first claim on a record counts, unless it is empty
            self._made[key] = storage
        return storage


def _unpickle_without_values(archive: _Archive) -> Any:
    data = read_bytes([archive.records[f"{archive.root}/data.pkl"]]).numpy().tobytes()
    try:
        return unpickle_tensors(io.BytesIO(data), _Storages(archive))
    except CheckpointError:
        raise
    except Exception as error:
        # unsafe, damaged, or unsupported on the meta device (sparse, quantized): loading it whole shows which
        raise NotLazyError("it holds sparse, quantized or pickled objects") from error


@dataclass(frozen=True)
class _Archive:
    """The directory of a zip archive of ``torch.save``."""

    root: str
    """The top folder in the archive."""
    records: dict[str, ByteRange]
    """The byte range of each record, by full name."""

    @property
    def byte_order(self) -> str:
        """``little`` or ``big``; before 2.0 torch wrote no byte order on little-endian machines."""
        # torch ignores case in the names of records
        name = f"{self.root}/byteorder".lower()
        span = next((span for record, span in self.records.items() if record.lower() == name), None)
        if span is None:
            return "little"
        # not with zipfile: torch can write archives without checksums (set_crc32_options)
        return read_bytes([span.part(0, min(span.length, 16))]).numpy().tobytes().decode("latin-1")


def _open_archive(path: Path) -> _Archive:
    """Read the directory of the archive ``path``, and check that each record is at its offset."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"a truncated or damaged zip archive ({error})") from error
    root = _root([info.filename for info in infos])
    records: dict[str, ByteRange] = {}
    with path.open("rb", buffering=0) as file:
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise CheckpointError(
                    f"its record {info.filename} is compressed or encrypted",
                    hint="unpack it and zip it again without compression (zip -0 -r)",
                )
            # in either case torch returns uninitialised memory
            if info.compress_size != info.file_size:
                raise CheckpointError(f"its record {info.filename} has two lengths")
            if info.file_size and info.external_attr & DIRECTORY:
                raise CheckpointError(f"its record {info.filename} is marked as a folder")
            file.seek(info.header_offset)
            header = file.read(LOCAL_HEADER)
            if header[:4] != b"PK\3\4" or len(header) < LOCAL_HEADER:
                raise CheckpointError(f"its record {info.filename} is not where the archive says")
            start = info.header_offset + LOCAL_HEADER + sum(unpack_from("<HH", header, 26))
            if start + info.file_size > size:
                raise CheckpointError(f"its record {info.filename} reaches beyond the end of the file")
            records[info.filename] = ByteRange(path, start, info.file_size)
    # an archive that torch reads differently, or not at all, cannot be trusted
    with path.open("rb") as opened:
        reader: Any = torch._C.PyTorchFileReader(str(path) if _is_text(path) else opened)
        in_torch = {f"{root}/{name}" for name in reader.get_all_records()}
        for name, span in records.items():
            if name not in in_torch or (span.length and reader.get_record_offset(name[len(root) + 1 :]) != span.offset):
                raise CheckpointError(f"its record {name} differs between torch and zipfile")
    pickled = records[f"{root}/data.pkl"].length
    if pickled > PICKLE_LIMIT:
        raise CheckpointError(f"its data.pkl claims {pickled} bytes")
    return _Archive(root, records)


def _is_text(path: Path) -> bool:
    """Whether a name can be passed to torch; others are of any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _root(names: list[str]) -> str:
    """Return the top folder in the archive, as torch determines it; refuse other archives."""
    below = {name.partition("/")[2] for name in names}
    all_names = below | set(names)
    if "constants.pkl" in all_names or any(name.startswith("code/") for name in below):
        raise CheckpointError(
            "a TorchScript archive: its network is compiled code, which cannot be edited",
            hint="torch.save(torch.jit.load(path).state_dict(), 'weights.pt') and use that, with --arch",
        )
    if "archive_format" in all_names or "serialized_exported_program.json" in all_names:
        raise CheckpointError(
            "a .pt2 archive of torch.export: its network is a graph, not modules",
            hint="torch.save(torch.export.load(path).state_dict, 'weights.pt') and use that, with --arch",
        )
    if ".data/extern_modules" in all_names:
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
        # torch and zipfile would each read a different one
        raise CheckpointError("two of its records have the same name")
    return root


def _record(tensor: Tensor) -> str | None:
    record = getattr(tensor.untyped_storage(), "record", None)
    return record if isinstance(record, str) else None


def _check_expansion(name: str, tensor: Tensor, size: int) -> None:
    """Refuse a view (of stride 0, for example) that would need far more memory than the file has bytes."""
    needed = tensor.numel() * tensor.dtype.itemsize
    if needed > max(EXPANSION * size, EXPANSION_FLOOR):
        raise CheckpointError(
            f"tensor '{name}' would take {needed} bytes in memory, and the file has {size}",
            hint="if it is an expanded view, save a clone() of a smaller tensor instead",
        )


def _entry(name: str, tensor: Tensor, archive: _Archive) -> Entry:
    shape = tuple(tensor.shape)
    if not is_plain(tensor):
        raise NotLazyError(f"'{name}' is not a plain dense tensor")
    record = _record(tensor)
    if record is None:
        raise NotLazyError(f"'{name}' has no record in the archive")
    place = archive.records[record]
    if not tensor.numel():
        return Entry(name, shape, tensor.dtype, place.part(0, 0))
    item = tensor.dtype.itemsize
    begin = int(tensor.storage_offset()) * item
    reach = sum((count - 1) * stride for count, stride in zip(shape, tensor.stride(), strict=True)) + 1
    if begin < 0 or min(tensor.stride(), default=0) < 0 or begin + reach * item > place.length:
        raise CheckpointError(f"tensor '{name}' reaches beyond its storage")
    span = place.part(begin, reach * item)
    if tensor.is_contiguous():
        return Entry(name, shape, tensor.dtype, span)
    _check_expansion(name, tensor, place.path.stat().st_size)
    return Entry(name, shape, tensor.dtype, load=_view(span, tensor.dtype, shape, tensor.stride()))


def _view(span: ByteRange, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> Callable[[], Tensor]:
    def load() -> Tensor:
        run = read_bytes([span]).view(dtype)
        return run.as_strided(shape, stride).clone(memory_format=torch.contiguous_format)

    return load
