"""Locate cached features, and limit their size on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from surgeon.errors import TrainingError
from surgeon.interfaces.cache_root import cache_root

LIMIT = 20.0
"""The most gigabytes of cached features in total, unless ``$SURGEON_CACHE_GB`` is set."""
ABANDONED = 24 * 3600
"""Seconds after which an unfinished file counts as abandoned."""


def cache_folder() -> Path:
    """Return the folder of cached features: ``$SURGEON_CACHE/features``, else ``~/.cache/surgeon/features``."""
    return cache_root() / "features"


def limit() -> int:
    """Return the most bytes of cached features in total.

    Raises:
        TrainingError: ``$SURGEON_CACHE_GB`` is not a number of at least 0.
    """
    setting = os.environ.get("SURGEON_CACHE_GB") or str(LIMIT)
    try:
        gigabytes = float(setting)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes >= 0:
        raise TrainingError(f"$SURGEON_CACHE_GB is {setting!r}, but must be a number of gigabytes")
    return int(min(gigabytes, 1e9) * 1e9)


def make_room(size: int) -> None:
    """Remove the least recently used features until ``size`` more bytes fit the limit.

    A file that another process has mapped stays readable for that process.

    Raises:
        TrainingError: ``size`` exceeds the limit or the free disk space.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if size > limit():
        raise _too_large(size, f"only {limit() / 1e9:.3g} GB may be kept", "set SURGEON_CACHE_GB, or features: none")
    for scratch in folder.glob(".*.npy.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - scratch.stat().st_mtime > ABANDONED:
                scratch.unlink()
    sets: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for path in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another process may delete files too
            sets.setdefault(path.name.rpartition("-")[0], []).append((path, path.stat()))
    total = sum(facts.st_size for files in sets.values() for _, facts in files)
    for files in sorted(sets.values(), key=lambda files: max(facts.st_mtime for _, facts in files)):
        if total + size <= limit():
            break
        for path, facts in files:
            path.unlink(missing_ok=True)
            total -= facts.st_size
    if size > shutil.disk_usage(folder).free:
        raise _too_large(size, f"{folder} has too little free space", "set SURGEON_CACHE to a folder on another disk")


def used(paths: Iterable[Path]) -> None:
    """Mark features as recently used."""
    for path in paths:
        with contextlib.suppress(OSError):  # for example, a file of another user
            os.utime(path)


def _too_large(size: int, reason: str, hint: str) -> TrainingError:
    return TrainingError(f"features cannot be cached: they take {size / 1e9:.3g} GB, and {reason}",
                         where="train.features", hint=hint)  # fmt: skip
