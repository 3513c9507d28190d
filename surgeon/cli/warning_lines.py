"""Print surgeon's own warnings as lines; a terminal needs no file and line of surgeon's code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from surgeon.errors import SurgeonWarning, visible


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each SurgeonWarning as ``warning: …`` on standard error; leave those of other packages to Python."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SurgeonWarning):
            print(f"warning: {visible(str(message))}", file=file or sys.stderr)
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = shown
    try:
        yield
    finally:
        warnings.showwarning = show
