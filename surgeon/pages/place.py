"""The file that a page is written to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from surgeon.errors import OutputError

GENERATOR = '<meta name="generator" content="surgeon'
"""What stands near the beginning of each page that surgeon wrote."""


def check_page(path: str | Path) -> Path:
    """Refuse a place where no page may be written, before any work is done.

    Raises:
        OutputError: It is a folder, another file that exists, or lies in a folder that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint=f"name a file in it: {path / 'report.html'}")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} does not exist, so {path.name} cannot be written there")
    if path.exists() and GENERATOR not in path.read_bytes()[:4096].decode("utf-8", "replace"):
        raise OutputError(f"{path} exists and is not a page that surgeon wrote", hint="choose another name")
    return path


def save_page(path: Path, page: str) -> Path:
    """Write a page beside its place, then put it there."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(page)
        Path(file.name).chmod(0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
