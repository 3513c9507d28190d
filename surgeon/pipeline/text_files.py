"""Write the small text files beside artifacts: recipes, pictures, tables."""

from __future__ import annotations

from pathlib import Path

from surgeon.errors import OutputError


def refuse_to_replace(*paths: Path, force: bool) -> None:
    """Refuse paths that cannot or should not be written to, before any work is done.

    Raises:
        OutputError: A path is a folder, exists while ``force`` is not set, or its folder does not exist.
    """
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError("exists already", where=str(path), hint="--force replaces it; -o names another place")
        if not path.parent.is_dir():
            raise OutputError("the folder does not exist", where=str(path.parent))


def write_text(path: Path, text: str) -> None:
    """Write a text file without changing line ends.

    Raises:
        OutputError: The path cannot be written to.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(path)) from error
