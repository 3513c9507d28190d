"""The small files that commands write beside artifacts: recipes, pictures, tables."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from surgeon.errors import OutputError


def refuse_to_replace(*paths: Path, force: bool) -> None:
    """Refuse places that cannot be written to, or should not be, before any work is done.

    Raises:
        OutputError: One is a folder, or exists while ``force`` is not set, or is in a folder that does not exist.
    """
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError("exists already", where=str(path), hint="--force replaces it; -o names another place")
        if not path.parent.is_dir():
            raise OutputError("there is no such folder", where=str(path.parent))


def tidy(path: Path, *, quiet: bool) -> None:
    """Remove what runs that were killed have left beside the output ``path``, and say how much it was."""
    from surgeon.checkpoint.scratch import clear_leftovers

    freed = clear_leftovers(path.parent)
    if freed and not quiet:
        from surgeon.cli.render.numbers import size

        print(f"removed {size(freed)} that an interrupted run left in {path.parent}", file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """Write a text file, its line ends as they are.

    Raises:
        OutputError: The place cannot be written to.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", where=str(path)) from error


def write_table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV.

    Raises:
        OutputError: The place cannot be written to.
    """
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
