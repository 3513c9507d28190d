"""Write the small files that commands leave beside artifacts: recipes, pictures, tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from surgeon.pipeline.text_files import refuse_to_replace, write_text

__all__ = ["refuse_to_replace", "write_table", "write_text"]


def write_table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV.

    Raises:
        OutputError: The place cannot be written to.
    """
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())
