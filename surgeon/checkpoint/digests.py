"""Compute and compare digests of an artifact's contents, to detect damage.

The hash is XXH3 (128 bits): several gigabytes a second, so it costs little beside writing. It detects damage, not
forgery: anyone who can write an artifact can write its digests.

A folder's manifest holds the digest of every other file. A ``.safetensors`` file holds the digest of the whole file,
computed with zeros in the digest's place. The last record of a ``.pt`` file is the digest of all bytes before it. In
each form the manifest also holds its own digest, computed without it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import xxhash

from surgeon.errors import VerificationError

KEY = "surgeon_digest"
"""The metadata key of a single file's digest."""
RECORD = "surgeon/digest"
"""The record of a ``.pt`` file that holds the digest of all bytes before it."""
LENGTH = 32
"""The length of a digest in hexadecimal digits."""
BLANK = "0" * LENGTH
"""The placeholder of a digest while it is computed."""
SMALL = 4 * 2**20
"""Files up to this many bytes are checked on each load."""
CHUNK = 2**22
HINT = "restore it from a copy, or make the artifact again from its recipe"


@dataclass(frozen=True)
class Integrity:
    """The result of a comparison with recorded digests; all zero if none are recorded."""

    files: int = 0
    """The number of unchanged files."""
    nbytes: int = 0
    """Their total size in bytes."""


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return xxhash.xxh3_128(data).hexdigest()


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with its own digest, as it can be read again.

    A file name that is not UTF-8 is a text with halves of characters in Python, which JSON does not have: each is
    written as its escape, ``\\udcff``.
    """
    manifest = _whole(manifest)
    return {**manifest, "digest": _manifest_digest(manifest)}


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(part) for part in value]
    return value


def check_manifest(manifest: dict[str, Any], where: str) -> None:
    """Compare a manifest with its digest; format 1 has none.

    Raises:
        VerificationError: The manifest has changed since it was written.
    """
    if manifest.get("format") != 1 and manifest.get("digest") != _manifest_digest(manifest):
        raise VerificationError("its manifest has changed since it was written", where=where, hint=HINT)


def check_files(manifest: dict[str, Any], files: list[Path], folder: Path | None, *, all_bytes: bool) -> Integrity:
    """Compare the files of an artifact with the recorded digests.

    Args:
        manifest: The artifact's manifest.
        files: The files with its tensors.
        folder: The artifact, if it is a folder.
        all_bytes: Compare files of any size, not only small JSON and YAML files.

    Raises:
        VerificationError: A file is missing, or has changed since it was written.
    """
    if folder is not None:
        return _check_folder(manifest, files, folder, all_bytes)
    if manifest.get("format") == 1 or not all_bytes:
        return Integrity()
    (file,) = files
    expected, portions = _of_zip(file) if zipfile.is_zipfile(file) else _of_safetensors(file)
    return _compare(file, expected, portions, file.stat().st_size)


def _manifest_digest(manifest: dict[str, Any]) -> str:
    plain = {key: value for key, value in manifest.items() if key != "digest"}
    return digest_of(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


def _check_folder(manifest: dict[str, Any], files: list[Path], folder: Path, all_bytes: bool) -> Integrity:
    if manifest.get("format") == 1:
        return Integrity()
    recorded = manifest["files"]
    count = nbytes = 0
    for file in files:
        if file.name not in recorded and all_bytes:
            raise VerificationError("was not there when the artifact was written", where=str(file), hint=HINT)
    for name, fact in recorded.items():
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts:
            raise VerificationError(f"its manifest names {name!r}, outside the artifact", where=str(folder), hint=HINT)
        file = folder / inside
        if not all_bytes and (fact["bytes"] > SMALL or file.suffix not in (".json", ".yaml")):
            continue
        if not file.is_file():
            raise VerificationError("is missing from the artifact", where=str(file), hint=HINT)
        size = file.stat().st_size
        if size != fact["bytes"]:
            problem = f"has {size} bytes, {fact['bytes']} were written: it has changed since"
            raise VerificationError(problem, where=str(file), hint=HINT)
        _compare(file, fact["xxh3"], _portions(file, 0, size), size)
        count, nbytes = count + 1, nbytes + size
    return Integrity(count, nbytes)


def _compare(file: Path, expected: str, portions: Iterator[bytes], size: int) -> Integrity:
    digest = xxhash.xxh3_128()
    for portion in portions:
        digest.update(portion)
    if digest.hexdigest() != expected:
        raise VerificationError("has changed since it was written", where=str(file), hint=HINT)
    return Integrity(1, size)


def place_in(header: bytes) -> int:
    """Return the position of the digest in the header of a ``.safetensors`` file.

    Raises:
        VerificationError: The header has none.
    """
    key = f'"{KEY}":"'.encode()
    if (at := header.find(key)) < 0:
        raise VerificationError("its header has lost the digest of the file", hint=HINT)
    return at + len(key)


def _of_safetensors(file: Path) -> tuple[str, Iterator[bytes]]:
    """Return a file's recorded digest, and the bytes to compute it from."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = opened.read(length)
    try:
        at = place_in(header)
    except VerificationError as error:
        error.at(str(file))
        raise
    expected = header[at : at + LENGTH].decode("latin-1")
    head = length.to_bytes(8, "little") + header[:at] + BLANK.encode() + header[at + LENGTH :]

    def portions() -> Iterator[bytes]:
        yield head
        yield from _portions(file, len(head), file.stat().st_size)

    return expected, portions()


def _of_zip(file: Path) -> tuple[str, Iterator[bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            record = next((info for info in archive.infolist() if info.filename.endswith(f"/{RECORD}")), None)
            expected = archive.read(record).decode("latin-1") if record else ""
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise VerificationError(f"is damaged ({error})", where=str(file), hint=HINT) from error
    if record is None:
        raise VerificationError("has lost the digest of its records", where=str(file), hint=HINT)
    return expected, _portions(file, 0, record.header_offset)


def _portions(file: Path, start: int, end: int) -> Iterator[bytes]:
    with file.open("rb") as opened:
        opened.seek(start)
        while start < end and (portion := opened.read(min(CHUNK, end - start))):
            start += len(portion)
            yield portion
