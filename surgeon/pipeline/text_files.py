"""Write the small text files beside artifacts: recipes, pictures, tables."""

from __future__ import annotations

from pathlib import Path

from surgeon.errors import OutputError


def refuse_to_replace(*paths: Path, force: bool) -> None:
    """Refuse places that cannot or must not be written to, before any work is done.

    Raises:
        OutputError: One is a folder, or exists while ``force`` is not set, or is in a folder that does not exist.
    """
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError("exists already", where=str(path), hint="--force replaces it; -o names another place")
        if not path.parent.is_dir():
            raise OutputError("there is no such folder", where=str(path.parent))


def write_text(path: Path, text: str) -> None:
    """Write a text file, with its line ends as they are.

    Raises:
        OutputError: The place cannot be written to.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(path)) from error
