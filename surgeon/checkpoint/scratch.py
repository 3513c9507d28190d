"""Write to a temporary path next to the output, and rename the result when it is complete.

What is not complete lies in a folder ``.surgeon-PID-…`` beside the output, whose owner holds a lock on a file in it.
A run that was killed leaves such a folder without an owner; the next run beside it removes it. A folder without a lock
is one that was just made, which is empty, or one that was being removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from surgeon.checkpoint.renaming import exchange, rename_to_free

PREFIX = ".surgeon-"
LOCK = "lock"
REPLACED = "replaced"


@contextmanager
def appearing(path: Path, *, replace: bool) -> Iterator[Path]:
    """Give a place to write to; what lies there at the end takes the place of ``path``.

    On an error, whatever lay at ``path`` stays, and nothing else is left.

    Args:
        path: The file or folder to come.
        replace: Replace what lies there. If not, and another run has put something there meanwhile, that stays.

    Raises:
        FileExistsError: Something is there that was not to be replaced.
    """
    clear_leftovers(path.parent)
    scratch, lock = _claimed(path.parent)
    try:
        yield scratch / path.name
        _put(scratch / path.name, path, scratch, replace=replace)
    finally:
        _remove(scratch)
        os.close(lock)


def _claimed(folder: Path) -> tuple[Path, int]:
    """Make a scratch folder with a lock that is held; another run may remove it before it is."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder))
        try:
            lock = os.open(scratch / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
            continue
        with suppress(OSError):  # some network file systems have no locks, and then nobody removes the folder
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return scratch, lock
        os.close(lock)


def _put(written: Path, path: Path, scratch: Path, *, replace: bool) -> None:
    if not replace or not os.path.lexists(path):
        rename_to_free(written, path)
    elif not (path.is_dir() or written.is_dir()):
        written.replace(path)
    elif not exchange(written, path):
        path.rename(scratch / REPLACED)
        try:
            written.rename(path)
        except OSError:
            (scratch / REPLACED).rename(path)
            raise


def _remove(scratch: Path) -> None:
    """Remove a scratch folder, the lock last: while that is there, it can be seen whether the owner lives."""
    with suppress(OSError):
        for entry in scratch.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or folder in one step, as others see it; if that is interrupted, the next run completes it."""
    scratch, lock = _claimed(path.parent)
    try:
        path.rename(scratch / path.name)
    finally:
        _remove(scratch)
        os.close(lock)


def clear_leftovers(folder: Path) -> int:
    """Remove what runs that were killed have left in ``folder``.

    A folder that was just being replaced is put back.

    Returns:
        How many bytes were freed.
    """
    freed = 0
    for scratch in folder.glob(f"{PREFIX}[0-9]*-*"):
        if scratch.is_dir() and not scratch.is_symlink():
            freed += _clear(scratch, folder)
    return freed


def _clear(scratch: Path, folder: Path) -> int:
    """Remove a scratch folder whose owner is dead; its lock is held meanwhile, so that no other run takes it over."""
    try:
        lock = os.open(scratch / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return _clear_unlocked(scratch)
    except OSError:
        return 0
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _put_back(scratch, folder)
        freed = _size(scratch)
        _remove(scratch)
        return freed
    except OSError:  # its owner lives
        return 0
    finally:
        os.close(lock)


def _clear_unlocked(scratch: Path) -> int:
    with suppress(OSError):
        scratch.rmdir()  # empty: if its owner lives, it makes another one
        return 0
    freed = _size(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    return freed


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
