"""Remember what installed plugins offer, so that listing it imports none of them.

What is remembered belongs to the files of a distribution, by the digests in its ``RECORD``; a distribution that is
installed in editable form may change at any time, and is asked each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from surgeon.interfaces.cache_root import cache_root
from surgeon.interfaces.distribution import surgeon_version


def fingerprint(entry: EntryPoint) -> str | None:
    """Digest the installed files behind an entry point; None if they may change without being installed again."""
    if entry.dist is None:
        return None
    record = entry.dist.read_text("RECORD")
    if not record or "sha256=" not in record:
        return None
    with suppress(ValueError):
        origin = json.loads(entry.dist.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            return None
    return digest([entry.name, entry.value, entry.dist.name, entry.dist.version, record])


def digest(parts: Iterable[str]) -> str:
    """Digest texts, with the versions of Python and surgeon."""
    present = [sys.version, surgeon_version() or "", str(Path(__file__).parent), *parts]
    return hashlib.sha256(json.dumps(present).encode()).hexdigest()


def recalled(key: str) -> Any:
    """Return what was remembered under a key; None if nothing was, or it cannot be read."""
    try:
        return json.loads(_file(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def remember(key: str, value: Any) -> None:
    """Remember a JSON-able value under a key; where the cache cannot be written to, do nothing."""
    file = _file(key)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        Path(name).replace(file)


def _file(key: str) -> Path:
    return cache_root() / "catalog" / f"{key}.json"
