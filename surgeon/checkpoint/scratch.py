"""Write to a temporary path beside the output, and rename the result when it is complete.

Incomplete output is in a folder ``.surgeon-PID-…`` beside the output. Its owner holds a lock on a file in it. A killed
run leaves the folder unlocked; the next run in the same place removes it. A folder without a lock file was either just
made, and is empty, or was being removed.
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
    """Yield a temporary path; on success, its content replaces ``path``.

    On an error, ``path`` stays as it was and the temporary path is removed.

    Args:
        path: The file or folder to write.
        replace: Whether to replace what exists at the end. If not, what another run has written meanwhile stays.

    Raises:
        FileExistsError: Something exists and is not to be replaced.
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
    """Make a scratch folder and lock it; repeated if another run removes the folder before it is locked."""
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
    """Remove a file or folder by one rename; if the removal is interrupted, the next run completes it."""
    scratch, lock = _claimed(path.parent)
    try:
        path.rename(scratch / path.name)
    finally:
        _remove(scratch)
        os.close(lock)


def clear_leftovers(folder: Path) -> int:
    """Remove the leftovers of killed runs in ``folder``.

    If a run was killed while it replaced an output, the old output is restored.

    Returns:
        The number of bytes freed.
    """
    freed = 0
    for scratch in folder.glob(f"{PREFIX}[0-9]*-*"):
        if scratch.is_dir() and not scratch.is_symlink():
            freed += _clear(scratch, folder)
    return freed


def _clear(scratch: Path, folder: Path) -> int:
    """Remove a scratch folder if its lock is free; holding the lock keeps other runs out meanwhile."""
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
