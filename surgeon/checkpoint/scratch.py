"""Write to a temporary path next to the output, and rename the result when it is complete.

What is not complete lies in a folder ``.surgeon-PID-…`` beside the output, whose owner holds a lock on a file in it.
A run that was killed leaves such a folder without an owner; the next run beside it removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".surgeon-"
LOCK = "lock"
REPLACED = "replaced"
UNLOCKED = 60.0
"""Seconds after which a folder without a lock counts as left behind: its owner was killed before it made one."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Give a place to write to; what lies there at the end takes the place of ``path``.

    On an error, whatever lay at ``path`` stays, and nothing else is left.
    """
    clear_leftovers(path.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=path.parent))
    lock = os.open(scratch / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield scratch / path.name
        if path.is_dir():
            path.rename(scratch / REPLACED)
        try:
            (scratch / path.name).replace(path)
        except OSError:
            if (scratch / REPLACED).exists():
                (scratch / REPLACED).rename(path)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def clear_leftovers(folder: Path) -> int:
    """Remove what runs that were killed have left in ``folder``.

    A folder that was just being replaced is put back.

    Returns:
        How many bytes were freed.
    """
    freed = 0
    for scratch in folder.glob(f"{PREFIX}[0-9]*-*"):
        if scratch.is_dir() and not scratch.is_symlink() and _is_left_behind(scratch):
            _put_back(scratch, folder)
            freed += _size(scratch)
            shutil.rmtree(scratch, ignore_errors=True)
    return freed


def _is_left_behind(scratch: Path) -> bool:
    try:
        lock = os.open(scratch / LOCK, os.O_RDWR)
    except FileNotFoundError:
        with suppress(OSError):
            return time.time() - scratch.stat().st_mtime > UNLOCKED
        return False
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _put_back(scratch: Path, folder: Path) -> None:
    """Undo a replacement that was interrupted between its two renames."""
    names = [entry.name for entry in scratch.iterdir() if entry.name not in (LOCK, REPLACED)]
    if (scratch / REPLACED).exists() and len(names) == 1 and not (folder / names[0]).exists():
        (scratch / REPLACED).rename(folder / names[0])


def _size(folder: Path) -> int:
    sizes = 0
    for entry in folder.rglob("*"):
        with suppress(OSError):
            sizes += 0 if entry.is_symlink() or not entry.is_file() else entry.stat().st_size
    return sizes
