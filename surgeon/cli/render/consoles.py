"""Print reports: to a terminal at its width, or to a pipe without wrapping and colours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from surgeon.cli.report import say
from surgeon.errors import visible
from surgeon.pages.numbers import size

PIPE_WIDTH = 100_000


class VisibleConsole(Console):
    """A console that escapes the control characters of what it prints; its own colours are added afterwards."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render as rich does, with control characters in texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """Make a console for stdout, stderr or a file that does not replace emoji codes or colour numbers."""
    stream = file or (sys.stderr if stderr else sys.stdout)
    width = None if stream is not None and stream.isatty() else PIPE_WIDTH  # a process may start with stdout closed
    return VisibleConsole(file=file, stderr=stderr, width=width, highlight=False, emoji=False, markup=False)


def show(renderable: RenderableType, *, stderr: bool = False) -> None:
    """Print a report without trailing blanks."""
    target = console(stderr=stderr)
    if target.is_terminal:
        target.print(renderable)
        return
    drawn = StringIO()
    console(file=drawn).print(renderable, soft_wrap=False)
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
    if stderr:
        print(text, file=target.file)
    else:
        say(text)


def show_page(path: Path | None) -> None:
    """Say where a page was written, if one was."""
    if path is not None:
        show(Text.assemble("\npage written to ", (str(path), "bold green")))


@contextmanager
def working(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show a spinner on stderr while something runs; nothing if stderr is not a terminal."""
    target = console(stderr=True)
    if quiet or not target.is_terminal:
        yield
        return
    with target.status(title):
        yield


@contextmanager
def reading(title: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a spinner on stderr with the number of bytes read, for an unknown total."""
    target = console(stderr=True)
    if quiet or not target.is_terminal:
        yield lambda _: None
        return
    total = 0
    with target.status(title) as status:

        def add(count: int) -> None:
            nonlocal total
            total += count
            status.update(f"{title}  {size(total)}")

        yield add


@contextmanager
def counting(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr for ``total`` bytes; yield a function to call with each number of bytes done."""
    target = console(stderr=True)
    if quiet or not target.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=target, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)
