"""Ask which parts of a file are in the page cache, so that reading them needs no disk access."""

from __future__ import annotations

import ctypes
import os
import sys

CACHESTAT = 451
"""The number of the system call (Linux 6.5), the same on all architectures except Alpha."""

MOSTLY = 0.9
"""The share of cached pages from which a range counts as cached."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "written_back", "evicted", "recently_evicted")
    )


def is_cached(file: int, offset: int, length: int) -> bool:
    """Return whether most of a range of a file is in the page cache; False if the kernel cannot say.

    A read without waiting (``RWF_NOWAIT``) would start reading the whole range, so it cannot be used to ask.

    Args:
        file: A file descriptor.
        offset: The start of the range.
        length: The length of the range in bytes.
    """
    if not sys.platform.startswith("linux"):
        return False
    length = min(length, os.fstat(file).st_size - offset)
    counts = _Counts()
    failed = ctypes.CDLL(None).syscall(
        ctypes.c_long(CACHESTAT),
        ctypes.c_int(file),
        ctypes.byref(_Range(offset, max(length, 0))),
        ctypes.byref(counts),
        ctypes.c_uint(0),
    )
    page = os.sysconf("SC_PAGE_SIZE")
    return not failed and length > 0 and counts.cached * page >= MOSTLY * length
