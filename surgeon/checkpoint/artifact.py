"""Artifacts: what ``apply`` writes, whole or not at all.

A folder holds ``model.safetensors`` (shards past 5 GB), the manifest ``surgeon.json``, ``recipe.yaml`` and,
where the result is a stock transformers class, ``config.json``. A single ``.safetensors`` or ``.pt`` file
carries the manifest in its metadata.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from surgeon.errors import OutputError

if TYPE_CHECKING:
    from surgeon.checkpoint.formats import ByteRange

MANIFEST = "surgeon.json"
RECIPE = "recipe.yaml"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
METADATA_KEY = "surgeon"
SHARD_BYTES = 5 * 10**9
CHUNK = 16 * 2**20

SAFETENSORS_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


@dataclass(frozen=True)
class Piece:
    """One tensor to be written: its place in a source file, or a way to make its values."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    stored: ByteRange | None
    value: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Contents:
    """Everything that an artifact holds.

    Attributes:
        pieces: The tensors, in order, a tied one once.
        manifest: ``surgeon.json``.
        recipe: ``recipe.yaml``.
        config: A transformers config, where the result is a stock class.
    """

    pieces: list[Piece]
    manifest: dict[str, Any]
    recipe: str
    config: dict[str, Any] | None = None


def check_output(path: Path, *, force: bool, inputs: list[Path]) -> None:
    """Refuse a place that cannot be written to, or should not be, before any work is done.

    Args:
        path: The folder or file to come.
        force: Whether an artifact (or file) that is there already may be replaced.
        inputs: The source's files; the output must not lie on or around them.

    Raises:
        OutputError: It exists, lies inside the input, or its parent is not writable.
    """
    if path.suffix in (".bin", ".pth", ".ckpt", ".onnx"):
        raise OutputError(f"{path}: surgeon writes folders, .safetensors and .pt", hint="choose one of these")
    resolved = path.resolve()
    for file in (f.resolve() for f in inputs):
        holder = file.parent if _holds_a_model(file.parent) else file
        if resolved in (file, holder) or resolved in holder.parents:
            raise OutputError(f"{path} is or holds the input, which is never written to", hint="choose another -o")
        if holder in resolved.parents:
            raise OutputError(f"{path} lies inside the input {holder}", hint="choose another -o")
    if path.exists():
        if not force:
            raise OutputError(f"{path} exists", hint="--force replaces it; -o names another place")
        if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).exists():
            raise OutputError(
                f"{path} is no artifact of surgeon's, and a folder of something else is not replaced",
                hint="-o names another place",
            )
    parent = resolved.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise OutputError(f"{parent} is a file, so {path} cannot be made below it")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{parent} is not writable", hint="-o names another place")


def _holds_a_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in (MANIFEST, CONFIG))


def write(path: Path, contents: Contents, progress: Callable[[int], None] | None = None) -> None:
    """Write an artifact; it appears under its name only when it is complete.

    Args:
        path: A folder, or a file that ends in ``.safetensors`` or ``.pt``.
        contents: What to write.
        progress: Called with the number of bytes each time some have been written.

    Raises:
        OutputError: The place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _appearing(path) as temporary:
            if path.suffix == ".safetensors":
                metadata = {
                    "format": "pt",
                    METADATA_KEY: json.dumps(contents.manifest),
                    "recipe": contents.recipe,
                }
                _write_safetensors(temporary, contents.pieces, metadata, progress)
            elif path.suffix == ".pt":
                _write_torch(temporary, contents, progress)
            else:
                temporary.mkdir()
                _write_folder(temporary, contents, progress)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A name beside ``path``; what is there at the end takes its place, on an error nothing is left."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield scratch / path.name
        if path.is_dir():
            path.rename(scratch / "replaced")
        (scratch / path.name).replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_folder(folder: Path, contents: Contents, progress: Callable[[int], None] | None) -> None:
    shards = _shards(contents.pieces)
    if len(shards) == 1:
        _write_safetensors(folder / WEIGHTS, shards[0], {"format": "pt"}, progress)
    else:
        names = {}
        for number, shard in enumerate(shards, start=1):
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            _write_safetensors(folder / file, shard, {"format": "pt"}, progress)
            names.update({piece.name: file for piece in shard})
        total = sum(piece.nbytes for piece in contents.pieces)
        _write_json(folder / f"{WEIGHTS}.index.json", {"metadata": {"total_size": total}, "weight_map": names})
    _write_json(folder / MANIFEST, contents.manifest)
    (folder / RECIPE).write_text(contents.recipe, encoding="utf-8")
    if contents.config is not None:
        _write_json(folder / CONFIG, contents.config)


def _shards(pieces: list[Piece]) -> list[list[Piece]]:
    shards: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.nbytes
    return shards


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_safetensors(
    path: Path, pieces: list[Piece], metadata: dict[str, str], progress: Callable[[int], None] | None
) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for piece in pieces:
        if piece.dtype not in SAFETENSORS_DTYPES:
            raise OutputError(
                f"{piece.name}: safetensors cannot hold {piece.dtype}", hint="write a .pt file: -o out.pt"
            )
        header[piece.name] = {
            "dtype": SAFETENSORS_DTYPES[piece.dtype],
            "shape": list(piece.shape),
            "data_offsets": [offset, offset + piece.nbytes],
        }
        offset += piece.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for piece in pieces:
            _write_piece(file, piece)
            if progress:
                progress(piece.nbytes)
        file.flush()
        os.fsync(file.fileno())


def _write_piece(file: BinaryIO, piece: Piece) -> None:
    if piece.stored is not None:
        file.flush()
        with piece.stored.path.open("rb") as source:
            copied = _copy(source.fileno(), file.fileno(), piece.stored.offset, piece.stored.length)
        file.seek(0, os.SEEK_END)
        if copied != piece.nbytes:
            raise OutputError(f"{piece.name}: {piece.stored.path} ended after {copied} of {piece.nbytes} bytes")
        return
    value = piece.value().detach().cpu().contiguous()
    if value.numel():
        file.write(memoryview(value.reshape(-1).view(torch.uint8).numpy()))


def _copy(source: int, target: int, offset: int, length: int) -> int:
    """Copy bytes from file to file in the kernel, or through memory where the file systems cannot."""
    done = 0
    while done < length:
        try:
            step = os.copy_file_range(source, target, length - done, offset_src=offset + done)
        except OSError:
            step = _copy_through_memory(source, target, offset + done, min(CHUNK, length - done))
        if step == 0:
            break
        done += step
    return done


def _copy_through_memory(source: int, target: int, offset: int, length: int) -> int:
    data = memoryview(os.pread(source, length, offset))
    written = 0
    while written < len(data):
        written += os.write(target, data[written:])
    return len(data)


def _write_torch(path: Path, contents: Contents, progress: Callable[[int], None] | None) -> None:
    """A bare state dict: plain ``torch.load`` and ``load_state_dict`` take it; the manifest rides in
    ``_metadata``, where torch keeps the version numbers of modules."""
    state: Any = OrderedDict()
    for piece in contents.pieces:
        state[piece.name] = piece.value().detach().cpu()
        if progress:
            progress(piece.nbytes)
    for alias, name in contents.manifest.get("aliases", {}).items():
        state[alias] = state[name]
    state._metadata = {METADATA_KEY: {"manifest": json.dumps(contents.manifest), "recipe": contents.recipe}}
    torch.save(state, path)
