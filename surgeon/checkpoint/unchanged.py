"""Notice that a file changes while it is read: what was read then is neither the one state nor the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from surgeon.checkpoint.contents import Checkpoint
from surgeon.errors import CheckpointError, SurgeonError

Stamp = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of a file."""


def stamp(path: Path) -> Stamp | None:
    """What changes when a file is written to or replaced; None where it is not there."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


@contextmanager
def unchanged(checkpoints: Iterable[Checkpoint]) -> Iterator[None]:
    """Refuse files that have changed since they were opened, at the end and in the place of another error.

    A file that was deleted is still the one that is read, where it is read to its end.

    Raises:
        CheckpointError: One has changed.
    """
    try:
        yield
    except SurgeonError as error:
        _refuse_changed(checkpoints, error)
        raise
    _refuse_changed(checkpoints, None)


def _refuse_changed(checkpoints: Iterable[Checkpoint], error: SurgeonError | None) -> None:
    for checkpoint in checkpoints:
        for path, before in checkpoint.stamps.items():
            now = stamp(path)
            if now is not None and now != before:
                raise CheckpointError(
                    "changed while it was read", where=str(path), hint="run it again when nothing writes to it any more"
                ) from error
