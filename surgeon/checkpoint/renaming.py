"""Rename without replacing, and exchange two names in one step: what Python's ``os`` does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

CURRENT = -100
"""AT_FDCWD: names are relative to the working directory."""
EXCHANGE = 2
"""RENAME_EXCHANGE of Linux's renameat2."""
UNSUPPORTED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})


def rename_to_free(written: Path, path: Path) -> None:
    """Rename ``written`` to ``path``, where nothing may be.

    Raises:
        FileExistsError: Something is there, perhaps since a moment ago.
    """
    if written.is_dir():
        if os.path.lexists(path):  # an empty folder would be replaced
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        try:
            written.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            raise
        return
    try:
        os.link(written, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        written.rename(path)
    else:
        written.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders change names in one step; False where that is not supported.

    Raises:
        OSError: One of them is not there, or may not be renamed.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(CURRENT, os.fsencode(one), CURRENT, os.fsencode(other), EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _renameat2() -> Callable[..., int] | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function
