"""Write to a temporary path beside the output, and rename the result when it is complete.

Incomplete output is in a folder ``.surgeon-PID-…`` beside the output. Its owner holds a lock on a file in it. A killed
run leaves the folder unlocked; the next run in the same place removes it.
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
"""Seconds after which a folder without a lock file counts as abandoned: its owner was killed before making one."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success, its content replaces ``path``.

    On an error, ``path`` stays as it was and the temporary path is removed.
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
    """Remove the leftovers of killed runs in ``folder``.

    If a run was killed while it replaced an output, the old output is restored.

    Returns:
        The number of bytes freed.
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
    """Restore an output that was moved away by a run killed between its two renames."""
    names = [entry.name for entry in scratch.iterdir() if entry.name not in (LOCK, REPLACED)]
    if (scratch / REPLACED).exists() and len(names) == 1 and not (folder / names[0]).exists():
        (scratch / REPLACED).rename(folder / names[0])


def _size(folder: Path) -> int:
    sizes = 0
    for entry in folder.rglob("*"):
        with suppress(OSError):
            sizes += 0 if entry.is_symlink() or not entry.is_file() else entry.stat().st_size
    return sizes
