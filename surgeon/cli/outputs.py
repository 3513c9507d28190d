"""Write the small files that commands put beside artifacts: recipes, pictures, tables."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from surgeon.errors import visible
from surgeon.pipeline.text_files import refuse_to_replace, write_text

__all__ = ["refuse_to_replace", "tidy", "write_table", "write_text"]


def tidy(path: Path, *, quiet: bool) -> None:
    """Remove leftovers of killed runs beside the output ``path``, and print their size."""
    from surgeon.checkpoint.scratch import clear_leftovers

    freed = clear_leftovers(path.parent)
    if freed and not quiet:
        from surgeon.pages.numbers import size

        print(f"removed {size(freed)} that an interrupted run left in {visible(str(path.parent))}", file=sys.stderr)


def write_table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV.

    Raises:
        OutputError: The path cannot be written to.
    """
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
