"""Read bytes of a file in whole pages, bypassing the page cache for pages that are not in it."""

from __future__ import annotations

import errno
import mmap
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from surgeon.checkpoint.contents import AGAIN, ByteRange
from surgeon.checkpoint.pagecache import is_cached
from surgeon.errors import CheckpointError

PAGE = 4096
"""Direct I/O needs offsets, lengths and memory in multiples of this; enough for all common devices."""
BUFFER = 4 * 2**20
"""The bytes of one request: enough to keep a disk busy, and a multiple of a page."""

DIRECT: int = getattr(os, "O_DIRECT", 0)
REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.ETXTBSY})
"""Error codes of file systems and kernels that do not support a request."""


def down(offset: int) -> int:
    """Round ``offset`` down to a whole page."""
    return offset // PAGE * PAGE


def up(offset: int) -> int:
    """Round ``offset`` up to a whole page."""
    return -(-offset // PAGE) * PAGE


@dataclass(frozen=True)
class Extent:
    """Runs of bytes of one file that are read in one go.

    The gaps between runs are shorter than a page, so every page of the extent has needed bytes.
    """

    path: Path
    runs: list[tuple[int, int]]
    """Start and end of each run, ascending."""

    @property
    def begin(self) -> int:
        """The start of the first run."""
        return self.runs[0][0]

    @property
    def end(self) -> int:
        """The end of the last run."""
        return self.runs[-1][1]

    def between(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of the runs between two offsets."""
        first = max(0, bisect_right(self.runs, (begin, begin)) - 1)
        for index in range(first, len(self.runs)):
            start, stop = self.runs[index]
            if start >= end:
                return
            if stop > begin:
                yield max(start, begin), min(stop, end)


def extents(spans: Iterable[ByteRange]) -> Iterator[Extent]:
    """Merge adjacent ranges among ``spans``, which are in the order of reading."""
    extent: Extent | None = None
    for span in spans:
        if not span.length:
            continue
        begin, end = span.offset, span.offset + span.length
        if extent is None or extent.path != span.path or not 0 <= begin - extent.end < PAGE:
            if extent is not None:
                yield extent
            extent = Extent(span.path, [(begin, end)])
        elif begin == extent.end:
            extent.runs[-1] = (extent.runs[-1][0], end)
        else:
            extent.runs.append((begin, end))
    if extent is not None:
        yield extent


class Reader:
    """Read one file.

    Bytes in the page cache are read from it. The others bypass it, so that they do not evict other programs' pages.
    Where direct I/O is refused, on opening or at the first request, all reads use the page cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY)
        self._direct = open_direct(path, os.O_RDONLY)
        self._scratch: mmap.mmap | None = None

    def read(self, extent: Extent) -> Iterator[memoryview]:
        """Yield the bytes of ``extent`` in parts; a view is valid until the next one.

        Raises:
            CheckpointError: The file has become shorter.
        """
        if self._scratch is None:
            self._scratch = mmap.mmap(-1, BUFFER)
        scratch = memoryview(self._scratch)
        for at in range(down(extent.begin), extent.end, BUFFER):
            size = min(BUFFER, up(extent.end) - at)
            needed = list(extent.between(at, at + size))
            self.fill(scratch[:size], at, needed[-1][1] - at)
            for begin, end in needed:
                yield scratch[begin - at : end - at]

    def fill(self, view: memoryview, offset: int, needed: int) -> None:
        """Fill ``view`` with the bytes at ``offset``.

        Args:
            view: Page-aligned memory, a whole number of pages long.
            offset: An offset in the file, a multiple of the page size.
            needed: How many bytes must be read; the file may end after them.

        Raises:
            CheckpointError: The file is too short.
        """
        filled = 0
        while filled < needed:
            count = self._request(view[filled:], offset + filled)
            if not count:
                problem = f"ends at byte {offset + filled}, {needed - filled} bytes early"
                raise CheckpointError(problem, where=str(self.path), hint=f"it changed after it was opened; {AGAIN}")
            filled += count

    def _request(self, view: memoryview, offset: int) -> int:
        if self._direct is not None and not offset % PAGE and not is_cached(self.file, offset, len(view)):
            try:
                return os.preadv(self._direct, [view], offset)
            except OSError as error:
                if error.errno not in REFUSED:
                    raise
                os.close(self._direct)
                self._direct = None
        return os.preadv(self.file, [view], offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)
        if self._direct is not None:
            os.close(self._direct)


def open_direct(path: Path, flags: int) -> int | None:
    """Open ``path`` for direct I/O; return None if that is refused."""
    if not DIRECT:
        return None
    try:
        return os.open(path, flags | DIRECT, 0o666)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return None
