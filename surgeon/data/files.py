"""Open the pictures of a column, and check each of them before training."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from surgeon.data.picture_decoder import decode_picture
from surgeon.errors import TrainingError, counted

Encoder = Callable[[Mapping[str, Any], int, bool], dict[str, Tensor]]
"""Called with a row, its number and whether to vary it; returns columns of the batch."""
HTML = (b"<html", b"<!doc", b"<?xml", b"<head")
THREADS = 8
ORIENTATION = 274
"""The EXIF tag that says how a picture is turned."""


class OpenedPictures:
    """Open the picture file of a row, then pass the row to an encoder.

    Args:
        encoder: Encodes the opened picture.
        column: The column, of paths or of what ``datasets`` stores for a picture.
        folder: The folder that paths are relative to.
        where: The name of the source in messages.
    """

    def __init__(self, encoder: Encoder, column: str, folder: Path, where: str) -> None:
        self.encoder = encoder
        self.column = column
        self.folder = folder
        self.where = where

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Open and encode the picture of a row."""
        with self._errors_named(row, index):
            picture = open_picture(row[self.column], self.folder)
            picture.load()
        return self.encoder({self.column: picture}, index, varied)

    def upright(self, row: Mapping[str, Any], index: int, channels: int) -> tuple[Any, bool]:
        """Return the picture of a row with the network's channels, and whether EXIF data turned it."""
        with self._errors_named(row, index):
            opened = open_picture(row[self.column], self.folder)
            opened.load()
            turned = opened.getexif().get(ORIENTATION, 1) != 1
            return decode_picture(opened, channels), turned

    @contextmanager
    def _errors_named(self, row: Mapping[str, Any], index: int) -> Iterator[None]:
        """Turn what PIL raises for a damaged file, which differs by format, into an error with the row."""
        try:
            yield
        except Exception as error:
            text = reason(row[self.column], self.folder, error)
            raise TrainingError(f"{self.where}, row {index}: {text}", where="train.data") from error

    @property
    def varies(self) -> bool:
        """Whether samples are varied."""
        return bool(getattr(self.encoder, "varies", False))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines variations."""
        if hasattr(self.encoder, "set_epoch"):
            self.encoder.set_epoch(epoch)


def open_picture(value: Any, folder: Path) -> Any:
    """Open the picture in a table's cell, or the one that it names, without decoding; raises PIL's exceptions."""
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping):
        value = io.BytesIO(value["bytes"]) if value.get("bytes") else value.get("path")
    if isinstance(value, bytes):
        value = io.BytesIO(value)
    if not isinstance(value, (str, io.BytesIO)) or value == "":
        raise ValueError("there is no picture")
    return Image.open(value if isinstance(value, io.BytesIO) else folder / value)


def picture_problem(value: Any, folder: Path) -> str | None:
    """Return what is wrong with a picture; None if it can be decoded completely."""
    try:
        if (picture := open_picture(value, folder)) is value:  # it is the caller's, and must not be closed
            picture.load()
            return None
        with picture:
            picture.verify()
        with open_picture(value, folder) as picture:  # verify makes the picture unusable
            if picture.format == "JPEG":  # reads the whole file, but computes less
                picture.draft("RGB", (max(1, picture.width // 8), max(1, picture.height // 8)))
            picture.load()
    except Exception as error:  # PIL's exceptions for damaged files differ by format
        return reason(value, folder, error)
    return None


def more_rows(count: int) -> str:
    """Say behind a message about one row that it is true of ``count`` others."""
    return f" (and {counted(count, 'more row')})" if count else ""


def reason(value: Any, folder: Path, error: Exception) -> str:
    """Return why a picture cannot be read, with the name of its file."""
    name = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or not name:
        return str(error) or type(error).__name__
    path = folder / name
    if isinstance(value, Mapping) and value.get("bytes"):
        return f"{name} cannot be read as a picture: {_reason(error, name)}"
    if not path.exists():
        return f"{path} does not exist"
    if not path.is_file():
        return f"{path} is not a file"
    if path.stat().st_size == 0:
        return f"{path} is empty"
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith(HTML):
        return f"{path} is a web page, not a picture"
    return f"{path} cannot be read as a picture: {_reason(error, path)}"


def problems(values: Sequence[Any], check: Callable[[Any, int], str | None]) -> dict[int, str]:
    """Check ``values`` in parallel, and return what is wrong with each, by position."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        texts = pool.map(check, values, range(len(values)))
        return {position: text for position, text in enumerate(texts) if text is not None}


def _reason(error: Exception, path: object) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "cannot identify image file" in text:
        return "its format is unknown"
    return text.replace(str(path), "it")
