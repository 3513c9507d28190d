"""Read JSON in checkpoints and in the files beside them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from surgeon.checkpoint.contents import damage_at
from surgeon.errors import CheckpointError

MANIFEST_KEY = "surgeon"
"""The metadata key of the manifest (as JSON) in a single file."""

_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE_BYTES = re.compile(_ESCAPE.pattern.encode())
"""Halves of characters, which nothing can write again if their other half is missing."""


def parse_object(text: str | bytes, *, unique: bool = False) -> dict[str, Any]:
    """Parse the JSON object in ``text``.

    Args:
        text: JSON; bytes are decoded as UTF-8.
        unique: Whether to refuse duplicate keys.

    Raises:
        CheckpointError: The JSON is not an object, a key is duplicated, or a text in it is half of a character.
        ValueError: The text is not JSON.
    """

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"'{twice}' occurs twice in its JSON")
        return entries

    value = json.loads(text, object_pairs_hook=collect if unique else None)
    if not isinstance(value, dict):
        raise CheckpointError("its JSON is not an object")
    if _ESCAPE.search(text) if isinstance(text, str) else _ESCAPE_BYTES.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])[1:-1]
            raise CheckpointError(f"its JSON has {half}, which is half of a character") from error
    return value


def read_object(path: Path) -> dict[str, Any] | None:
    """Read the JSON object in the file ``path``; None if the file does not exist.

    Raises:
        CheckpointError: The file cannot be read, or is not a JSON object.
    """
    if not path.is_file():
        return None
    with damage_at(str(path), "not readable as JSON"):
        return parse_object(path.read_bytes())


def manifest_in(metadata: Any) -> dict[str, Any] | None:
    """Read the manifest in a single file's metadata: the safetensors header, or ``_metadata`` of a state dict.

    Raises:
        CheckpointError: The manifest is not JSON, or not an object.
    """
    value = metadata.get(MANIFEST_KEY) if isinstance(metadata, Mapping) else None
    text = value.get("manifest") if isinstance(value, Mapping) else value
    try:
        return parse_object(text) if isinstance(text, str) else None
    except ValueError as error:
        raise CheckpointError(f"its manifest is damaged: {error}", hint="restore it from a copy") from error
