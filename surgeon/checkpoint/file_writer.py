"""Fill a file with bytes of other files, bypassing the page cache where the file system allows it.

Copying a checkpoint waits for the page cache, not the disk: written bytes are copied into it, and from there to the
disk. Direct I/O (``O_DIRECT``) avoids that, but needs offsets, lengths and memory in whole pages. So the file is
written in buffers of whole pages, and bytes at another offset in their source page are shifted in memory. Reading and
writing
overlap: a thread writes one buffer while the next is filled, and both release the GIL.

Where direct I/O is refused, on opening or at the first request (some network and overlay file systems), the same
requests use the page cache, and the kernel copies long runs if it can.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from surgeon.checkpoint.contents import ByteRange
from surgeon.checkpoint.pages import BUFFER, DIRECT, PAGE, REFUSED, Extent, Reader, down, extents, open_direct, up

BUFFERS = 2
"""How many full buffers may wait to be written."""

Progress = Callable[[int], None]


class Writer:
    """Write a file from beginning to end; when the context ends, the file is on the disk.

    Args:
        path: The file; existing content is lost.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = open_direct(path, flags)
        self.direct = file is not None
        """Whether writes bypass the page cache."""
        self.digest = ""
        """The XXH3 digest of the file, set when the context ends."""
        self._file = os.open(path, flags, 0o666) if file is None else file
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="surgeon-writer")
        self._waiting: deque[tuple[Future[None], mmap.mmap]] = deque()
        self._hash = xxhash.xxh3_128()
        self._reader: Reader | None = None
        self._buffer = mmap.mmap(-1, BUFFER)
        self._start_buffer(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._thread.shutdown()
            if self._reader is not None:
                self._reader.close()
            os.close(self._file)

    def tell(self) -> int:
        """Return the number of bytes written so far; with :meth:`write` and :meth:`flush`, zipfile's view of a file."""
        return self._base + self._end

    def digest_so_far(self) -> str:
        """Return the XXH3 digest of the bytes written so far, in hexadecimal."""
        for job, _ in self._waiting:
            job.result()
        digest = self._hash.copy()
        digest.update(memoryview(self._buffer)[self._begin : self._end])
        return digest.hexdigest()

    def flush(self) -> None:
        """Do nothing: the file is complete only when the context ends."""

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``."""
        view = memoryview(data)
        position = 0
        while position < len(view):
            count = min(BUFFER - self._end, len(view) - position)
            self._buffer[self._end : self._end + count] = view[position : position + count]
            self._filled(count)
            position += count
        return position

    def copy(self, spans: Iterable[ByteRange], progress: Progress | None = None) -> None:
        """Append byte ranges of other files.

        Args:
            spans: The ranges, in the order to write them.
            progress: Called with the number of bytes after each copy.

        Raises:
            CheckpointError: A source file has become shorter.
        """
        for extent in extents(spans):
            if len(extent.runs) == 1:
                self._copy_run(extent.path, extent.begin, extent.end, progress)
            else:
                self._shift(extent, progress)

    def stream(self, spans: Iterable[ByteRange]) -> Iterator[memoryview]:
        """Yield the bytes of other files, for callers who append them; a view is valid until the next one."""
        for extent in extents(spans):
            yield from self._source(extent.path).read(extent)

    def _source(self, path: Path) -> Reader:
        if self._reader is None or self._reader.path != path:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            self._reader = Reader(path)
        return self._reader

    def _copy_run(self, path: Path, begin: int, end: int, progress: Progress | None) -> None:
        if not self.direct:
            begin += self._copy_in_kernel(path, begin, end - begin, progress)
        first, last = up(begin), down(end)
        if (begin - self.tell()) % PAGE or last - first < PAGE:
            self._shift(Extent(path, [(begin, end)]), progress)
            return
        self._shift(Extent(path, [(begin, first)]), progress)
        while first < last:
            count = min(BUFFER - self._end, last - first)
            self._source(path).fill(memoryview(self._buffer)[self._end : self._end + count], first, count)
            self._filled(count)
            first += count
            if progress:
                progress(count)
        self._shift(Extent(path, [(last, end)]), progress)

    def _shift(self, extent: Extent, progress: Progress | None) -> None:
        """Copy through memory, for bytes whose offset in the page differs between source and file."""
        for data in self._source(extent.path).read(extent):
            self.write(data)
            if progress:
                progress(len(data))

    def _copy_in_kernel(self, path: Path, offset: int, length: int, progress: Progress | None) -> int:
        """Let the kernel copy from file to file if it can; return the number of bytes copied."""
        if length < BUFFER or not hasattr(os, "copy_file_range"):
            return 0
        self._hand_over()
        source, start, copied = self._source(path).file, self.tell(), 0
        while copied < length:
            try:
                request = min(length - copied, BUFFER * BUFFERS)
                count = os.copy_file_range(source, self._file, request, offset + copied, start + copied)
            except OSError as error:
                if error.errno not in REFUSED:
                    raise
                break
            if not count:  # the end of the source; the caller reports missing bytes
                break
            self._thread.submit(self._hash_copied, source, offset + copied, count).result()
            copied += count
            if progress:
                progress(count)
        self._start_buffer(start + copied)
        return copied

    def _hash_copied(self, file: int, offset: int, count: int) -> None:
        """Add the bytes that the kernel has copied to the digest; they are in the page cache."""
        while count and (data := os.pread(file, min(count, BUFFER), offset)):
            self._hash.update(data)
            offset, count = offset + len(data), count - len(data)

    def _start_buffer(self, position: int) -> None:
        # a byte has the same offset in its page in the buffer and in the file
        self._base = down(position)
        self._begin = self._end = position - self._base

    def _filled(self, count: int) -> None:
        self._end += count
        if self._end == BUFFER:
            self._hand_over()

    def _hand_over(self) -> None:
        """Pass the buffer to the writing thread, and continue with another one."""
        position = self.tell()
        if self._end > self._begin:
            job = self._thread.submit(self._write_out, self._buffer, self._begin, self._end, self._base)
            self._waiting.append((job, self._buffer))
            if len(self._waiting) <= BUFFERS:
                self._buffer = mmap.mmap(-1, BUFFER)
            else:
                job, self._buffer = self._waiting.popleft()
                job.result()
        self._start_buffer(position)

    def _write_out(self, buffer: mmap.mmap, begin: int, end: int, base: int) -> None:
        view = memoryview(buffer)
        self._hash.update(view[begin:end])
        while begin < end:
            try:
                begin += os.pwrite(self._file, view[begin:end], base + begin)
            except OSError as error:
                if not self.direct or error.errno not in REFUSED:
                    raise
                self.direct = False
                fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~DIRECT)

    def _finish(self) -> None:
        length = self.tell()
        self.digest = self.digest_so_far()
        if self.direct:  # the last page is written whole, then truncated
            page_end = up(self._end)
            self._buffer[self._end : page_end] = bytes(page_end - self._end)
            self._end = page_end
        self._hand_over()
        for job, _ in self._waiting:
            job.result()
        os.ftruncate(self._file, length)
        os.fsync(self._file)
