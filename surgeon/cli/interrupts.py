"""Say what an interrupted training leaves, and how to go on with it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
"""The arguments of the command that runs, as they were typed."""


@contextmanager
def going_on_explained(folder: Path) -> Iterator[None]:
    """Add to an interrupt what is kept in ``folder`` and the command to go on.

    Args:
        folder: Where the checkpoints of the run lie.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        for line in _left(folder):
            interrupt.add_note(line)
        raise


@contextmanager
def starting_over_explained() -> Iterator[None]:
    """Add to an interrupt of a training without checkpoints that ``surgeon train`` makes them."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("nothing is kept, and nothing was written: apply trains without checkpoints to go on from")
        interrupt.add_note("surgeon train RECIPE MODEL makes one after every epoch, and goes on with --resume")
        raise


def _left(folder: Path) -> list[str]:
    """What to say of an interrupted run."""
    from surgeon.training.checkpoints import RUN

    last = _last(folder)
    if last is None:
        if not (folder / RUN).exists():
            return ["training had not begun: nothing is kept"]
        return ["no checkpoint was made yet, so that training begins from its start", f"begin again:  {_command()}"]
    return [f"kept: {last}", f"go on with:  {_command()}"]


def _last(folder: Path) -> Path | None:
    numbered = {int(match[1]): path for path in folder.glob("checkpoint-*")
                if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))}  # fmt: skip
    return numbered[max(numbered)] if numbered else None


def _command() -> str:
    """The command that was typed, with --resume; --force would begin anew."""
    typed = [argument for argument in TYPED.get() if argument not in ("--resume", "--force")]
    return shlex.join(["surgeon", *typed, "--resume"])
