"""Say what an interrupted training leaves, and how to go on with it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from surgeon.errors import SurgeonError

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
"""The arguments of the command that runs, as they were typed."""


class Stopped(KeyboardInterrupt):
    """The process is to end: by a signal other than Ctrl-C's, whose number is the argument."""


class InterruptionError(SurgeonError):
    """A command was interrupted; the hint says what is kept and how to go on.

    An error and no KeyboardInterrupt, of which typer would make an exit without a word.
    """

    exit_code = 128 + signal.SIGINT


def listen() -> None:
    """Take SIGTERM and SIGHUP as Ctrl-C: so that what was begun is tidied up, and a person sees how to go on."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it, and that stays
            signal.signal(number, _stop)


STOPPED: list[int] = []
"""The signals that have come in."""


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    STOPPED.append(number)
    raise Stopped(number)


@contextmanager
def going_on_explained(folder: Path) -> Iterator[None]:
    """Say at an interrupt what is kept in ``folder``, and the command to go on.

    Args:
        folder: Where the checkpoints of the run lie.

    Raises:
        InterruptionError: In the place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _interrupted(interrupt, _left(folder)) from interrupt


@contextmanager
def starting_over_explained() -> Iterator[None]:
    """Say at an interrupt of a training without checkpoints that ``surgeon train`` makes them.

    Raises:
        InterruptionError: In the place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        lines = [
            "nothing is kept, and nothing was written: apply trains without checkpoints to go on from",
            "surgeon train RECIPE MODEL makes one after every epoch, and goes on with --resume",
        ]
        raise _interrupted(interrupt, lines) from interrupt


def _interrupted(interrupt: KeyboardInterrupt, lines: list[str]) -> InterruptionError:
    error = InterruptionError("interrupted", hint="\n    ".join(lines))
    error.exit_code = 128 + (interrupt.args[0] if isinstance(interrupt, Stopped) else signal.SIGINT)
    return error


def _left(folder: Path) -> list[str]:
    """What to say of an interrupted run."""
    from surgeon.training.checkpoints import RUN, last_checkpoint

    last = last_checkpoint(folder)
    if last is None:
        if not (folder / RUN).exists():
            return ["training had not begun: nothing is kept"]
        return ["no checkpoint was made yet, so that training begins from its start", f"begin again:  {_command()}"]
    return [f"kept: {last}", f"go on with:  {_command()}"]


def _command() -> str:
    """The command that was typed, with --resume; --force would begin anew."""
    typed = [argument for argument in TYPED.get() if argument not in ("--resume", "--force")]
    return shlex.join(["surgeon", *typed, "--resume"])
