"""Read from its manifest how an artifact was made."""

from __future__ import annotations

import reprlib
from typing import Any

from pydantic import ValidationError

from surgeon.architectures.limits import check_length, check_request
from surgeon.checkpoint.digests import check_files, check_manifest
from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import CheckpointError
from surgeon.interfaces.distribution import DISTRIBUTION, surgeon_version
from surgeon.interfaces.record import FORMAT, Record


def read_record(checkpoint: Checkpoint) -> Record:
    """Validate the manifest of an artifact and return its record.

    Raises:
        CheckpointError: The manifest has a newer format, or it or a small file beside it has changed since it was
            written.
    """
    manifest: dict[str, Any] = checkpoint.manifest or {}
    _check_format(manifest, checkpoint.location)
    check_length(manifest.get("record"), f"{checkpoint.location}: its manifest")
    check_manifest(manifest, checkpoint.location)
    _check_names(manifest, checkpoint.location)
    try:
        record = Record.model_validate(manifest.get("record"))
    except ValidationError as error:
        problem = error.errors()[0]
        message = f"{'.'.join(map(str, problem['loc'])) or 'record'}: {problem['msg']}"
        raise _damaged(message, checkpoint.location) from error
    if checkpoint.folder is not None and manifest["format"] > 1:  # a single file has its digest in its header
        _check_digests(manifest.get("files"), checkpoint.location)
    check_files(manifest, checkpoint.files, checkpoint.folder, all_bytes=False)
    for surgeries in record.surgeries:
        for requested in (surgeries.operations, [recorded.fields for recorded in surgeries.resolved]):
            check_request(requested, surgeries.inputs, f"{checkpoint.location}: its manifest")
    return record


def _check_format(manifest: dict[str, Any], where: str) -> None:
    form = manifest.get("format")
    if type(form) is not int or form < 1:
        raise _damaged(f"format: {form!r} is not the number of a format", where)
    if form > FORMAT:
        requirement = (
            f"'{DISTRIBUTION}>={writer}'" if (writer := writer_of(manifest, "surgeon")) else f"-U {DISTRIBUTION}"
        )
        raise CheckpointError(
            f"its manifest has format {form}, and surgeon {surgeon_version() or ''} reads up to {FORMAT}",
            where=where,
            hint=f"install the surgeon that wrote it: python -m pip install {requirement}",
        )


def _check_names(manifest: dict[str, Any], where: str) -> None:
    """Refuse lists and mappings of names in a manifest, outside of its record, that are none."""
    for key, kind in (("frozen", list), ("aliases", dict), ("companions", dict)):
        value = manifest.get(key)
        if value is not None and not (isinstance(value, kind) and all(isinstance(name, str) for name in value)):
            raise _damaged(f"{key}: {reprlib.repr(value)} is not a {kind.__name__} of names", where)
    for name, fact in (manifest.get("companions") or {}).items():
        if not isinstance(fact, dict) or not isinstance(fact.get("kind"), str):
            raise _damaged(f"companions.{name}: {reprlib.repr(fact)} has no kind", where)


def _check_digests(files: Any, where: str) -> None:
    """Refuse a list of files that lacks the size or digest of one."""
    if not isinstance(files, dict):
        raise _damaged(f"files: {reprlib.repr(files)} is not a mapping of names", where)
    for name, fact in files.items():
        complete = isinstance(fact, dict) and type(fact.get("bytes")) is int and isinstance(fact.get("xxh3"), str)
        if not complete:
            raise _damaged(f"files.{name}: {reprlib.repr(fact)} has no size and digest", where)


def writer_of(manifest: dict[str, Any], package: str) -> str | None:
    """Return the version of a package that wrote the artifact; None if its manifest does not say."""
    versions = manifest.get("versions")
    written = versions.get(package) if isinstance(versions, dict) else None
    return written if isinstance(written, str) else None


def _damaged(problem: str, where: str) -> CheckpointError:
    return CheckpointError(f"its manifest is damaged: {problem}", where=where, hint="make the artifact again")
