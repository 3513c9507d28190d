"""Read CSV files with pyarrow, and refuse those whose quotes swallow rows, which pyarrow reads without a word."""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from surgeon.errors import TrainingError

SEPARATORS = (",", ";", "\t", "|")


def csv_header(file: Path, separator: str) -> tuple[list[str], str | None]:
    """Return the names of the columns, and a hint if another separator is likely.

    Raises:
        TrainingError: The file is empty.
    """
    from pyarrow import csv as arrow_csv

    with file.open("rb") as opened:
        head = next((text for line in opened if (text := line.decode("utf-8-sig", "replace").strip("\r\n"))), "")
    if not head:
        raise TrainingError(f"{file} is empty", where="train.data.path")
    names: list[str] = arrow_csv.open_csv(file, parse_options=_parsing(separator)).schema.names
    other = next((mark for mark in SEPARATORS if mark != separator and mark in head), None)
    return names, f"separator: {other!r}" if len(names) == 1 and other is not None else None


def csv_cells(file: Path, separator: str, columns: Sequence[str], numeric: Collection[str]) -> Any:
    """Return columns as an arrow table; all but the ``numeric`` ones stay text, so that "NA" and "01" do not change.

    Raises:
        TrainingError: The file cannot be read, or a quote that is not closed swallows rows.
    """
    from pyarrow import ArrowInvalid, string
    from pyarrow import csv as arrow_csv

    options = arrow_csv.ConvertOptions(
        include_columns=columns,
        column_types={column: string() for column in columns if column not in numeric},
        strings_can_be_null=False,
    )
    try:
        table = arrow_csv.read_csv(file, parse_options=_parsing(separator), convert_options=options)
    except ArrowInvalid as error:
        _check_quotes(file, separator)
        reason = str(error).splitlines()[0]
        fix = "save it as UTF-8" if "UTF8" in reason else None
        raise TrainingError(f"{file} cannot be read: {reason}", where="train.data.path", hint=fix) from error
    if _spans_lines(file, table.num_rows):
        _check_quotes(file, separator)
    return table


def _parsing(separator: str) -> Any:
    from pyarrow import csv as arrow_csv

    return arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True)


def _spans_lines(file: Path, rows: int) -> bool:
    """Return whether a quoted cell may span lines: there are quotes, and not as many lines as rows."""
    lines, quoted = 0, False
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            lines += block.count(b"\n")
            quoted = quoted or b'"' in block
    return quoted and lines not in (rows, rows + 1)  # with the header; the last line may end with the file


def _check_quotes(file: Path, separator: str) -> None:
    """Refuse a cell of several lines whose quote is closed by that of another cell, or by none.

    Raises:
        TrainingError: There is such a cell; the error names its line.
    """
    longest = csv.field_size_limit(sys.maxsize)
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
            reader = csv.reader(opened, delimiter=separator, strict=True)
            while True:
                line = reader.line_num + 1
                try:
                    next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if reader.line_num > line:
                        raise TrainingError(
                            f"{file}, line {line}: a quote opens a cell and is not closed in its line, so the cell "
                            "takes in the lines after it",
                            where="train.data.path",
                            hint="close the quote, or write it twice where it belongs to the text",
                        ) from error
    finally:
        csv.field_size_limit(longest)
