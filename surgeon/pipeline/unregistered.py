"""Refuse to write what could never be loaded, because an operation cannot be found again."""

from __future__ import annotations

from pathlib import Path

from surgeon.errors import OutputError
from surgeon.interfaces.record import Record
from surgeon.interfaces.registered import UNREGISTERED


def refuse_unregistered(record: Record, path: Path) -> None:
    """Refuse to write an artifact whose operations no plugin offers; a plain state dict needs none.

    Raises:
        OutputError: There are such operations; it names the file that defines the first.
    """
    if path.suffix == ".pt":
        return
    for surgeries in record.surgeries:
        for extension, origin in surgeries.plugins.items():
            if origin.endswith(UNREGISTERED):
                file = origin.removesuffix(UNREGISTERED)
                kind, _, name = extension.partition(" ")
                raise OutputError(
                    f"the {kind} {name!r} could not be found when this is loaded: no plugin offers it",
                    where=str(path),
                    hint=f"register it in {file}, with @surgeon.register before the class; then apply it again",
                )
