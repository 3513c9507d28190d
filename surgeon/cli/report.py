"""Write reports to standard output, and notice at once where they are lost."""

from __future__ import annotations

import sys

from surgeon.errors import OutputError


def say(text: str | None = None) -> None:
    """Print a text, if one is given, with what waits to be printed.

    Raises:
        OutputError: Standard output cannot be written: its disk is full, for example.
        BrokenPipeError: Nobody reads it any more.
    """
    try:
        if text is not None:
            print(text)
        if sys.stdout is not None:  # a process may start with it closed
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output cannot be written: {error.strerror}",
            hint="files that the command wrote are complete; only what it prints is lost",
        ) from error
