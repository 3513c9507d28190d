"""Read bytes of a file in whole pages, bypassing the page cache unless they are in it already."""

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
"""What direct I/O asks places, lengths and memory to be multiples of; enough for every common device."""
BUFFER = 4 * 2**20
"""The bytes of one request: enough to keep a disk busy, and a whole number of pages."""

DIRECT: int = getattr(os, "O_DIRECT", 0)
REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.ETXTBSY})
"""What file systems and kernels answer to a request of a kind that they do not know."""


def down(offset: int) -> int:
    """``offset``, rounded down to a whole page."""
    return offset // PAGE * PAGE


def up(offset: int) -> int:
    """``offset``, rounded up to a whole page."""
    return -(-offset // PAGE) * PAGE


@dataclass(frozen=True)
class Extent:
    """Wanted bytes of one file that are read as one.

    Less than a page lies between two runs of them, so that every page of the extent holds wanted bytes.
    """

    path: Path
    runs: list[tuple[int, int]]
    """Where each run of wanted bytes begins and ends, ascending."""

    @property
    def begin(self) -> int:
        """The first wanted byte."""
        return self.runs[0][0]

    @property
    def end(self) -> int:
        """The place behind the last wanted byte."""
        return self.runs[-1][1]

    def between(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs, as far as they lie between two places."""
        first = max(0, bisect_right(self.runs, (begin, begin)) - 1)
        for index in range(first, len(self.runs)):
            start, stop = self.runs[index]
            if start >= end:
                return
            if stop > begin:
                yield max(start, begin), min(stop, end)


def extents(spans: Iterable[ByteRange]) -> Iterator[Extent]:
    """Merge neighbours among ``spans``, which stand in the order in which their bytes are wanted."""
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
    """One file, open for reading.

    What is in the page cache is taken from there; the rest is read past it, and does not drive out what
    others have in it. Where direct I/O is refused, at opening or at the first request, all of it is read
    through the page cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY)
        self._direct = open_direct(path, os.O_RDONLY)
        self._scratch: mmap.mmap | None = None

    def read(self, extent: Extent) -> Iterator[memoryview]:
        """The wanted bytes of ``extent``, bit by bit; each view holds until the next is asked for.

        Raises:
            CheckpointError: The file is shorter than it was.
        """
        if self._scratch is None:
            self._scratch = mmap.mmap(-1, BUFFER)
        scratch = memoryview(self._scratch)
        for at in range(down(extent.begin), extent.end, BUFFER):
            size = min(BUFFER, up(extent.end) - at)
            wanted = list(extent.between(at, at + size))
            self.fill(scratch[:size], at, wanted[-1][1] - at)
            for begin, end in wanted:
                yield scratch[begin - at : end - at]

    def fill(self, view: memoryview, offset: int, needed: int) -> None:
        """Fill ``view`` with the bytes at ``offset``.

        Args:
            view: Memory that begins at a page, a whole number of pages long.
            offset: A place in the file, a whole number of pages from its beginning.
            needed: How many of the bytes must be there; the file may end behind them.

        Raises:
            CheckpointError: It ends before them.
        """
        done = 0
        while done < needed:
            count = self._request(view[done:], offset + done)
            if not count:
                what = f"ends at byte {offset + done}, {needed - done} bytes early"
                raise CheckpointError(what, where=str(self.path), hint=f"it changed after it was opened; {AGAIN}")
            done += count

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
    """Open ``path`` for direct I/O; None where that is refused."""
    if not DIRECT:
        return None
    try:
        return os.open(path, flags | DIRECT, 0o666)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return None
