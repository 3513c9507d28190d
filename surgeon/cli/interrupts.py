"""Explain what an interrupted training keeps, and how to resume it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from surgeon.errors import SurgeonError

TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
"""The arguments of the running command, as typed."""


class Stopped(KeyboardInterrupt):
    """Raised in place of KeyboardInterrupt for another signal, whose number is the argument."""


class InterruptionError(SurgeonError):
    """Raised when a command is interrupted; the hint says what is kept and how to resume.

    It is not a KeyboardInterrupt, because typer exits on that without a message.
    """

    exit_code = 128 + signal.SIGINT


def listen() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that temporary files are removed and the message says how to resume."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # keep nohup's setting, which ignores it
            signal.signal(number, _stop)


STOPPED: list[int] = []
"""The signals received."""


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
    STOPPED.append(number)
    raise Stopped(number)


@contextmanager
def resume_hint(folder: Path) -> Iterator[None]:
    """On an interrupt, say what is kept in ``folder``, and the command to resume.

    Args:
        folder: The folder with the run's checkpoints.

    Raises:
        InterruptionError: In place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise _interrupted(interrupt, _leftovers(folder)) from interrupt


@contextmanager
def restart_hint() -> Iterator[None]:
    """On an interrupt of a training without checkpoints, say that ``surgeon train`` makes them.

    Raises:
        InterruptionError: In place of a KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        lines = [
            "nothing is kept, and nothing was written: apply trains without checkpoints",
            "surgeon train RECIPE MODEL makes one after every epoch and continues with --resume",
        ]
        raise _interrupted(interrupt, lines) from interrupt


def _interrupted(interrupt: KeyboardInterrupt, lines: list[str]) -> InterruptionError:
    error = InterruptionError("interrupted", hint="\n    ".join(lines))
    error.exit_code = 128 + (interrupt.args[0] if isinstance(interrupt, Stopped) else signal.SIGINT)
    return error


def _leftovers(folder: Path) -> list[str]:
    """Return the lines of the hint: what is kept, and the command to type."""
    from surgeon.training.checkpoints import RUN, last_checkpoint

    last = last_checkpoint(folder)
    if last is None:
        if not (folder / RUN).exists():
            return ["training had not begun: nothing is kept"]
        return ["no checkpoint was made yet", f"start again:  {_command()}"]
    return [f"kept: {last}", f"resume with:  {_command()}"]


def _command() -> str:
    """Return the typed command with --resume and without --force, which would start over."""
    typed = [argument for argument in TYPED.get() if argument not in ("--resume", "--force")]
    return shlex.join(["surgeon", *typed, "--resume"])
