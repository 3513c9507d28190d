"""Show a running command's progress on a terminal: the plan, spinners and bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from surgeon.cli.render.consoles import counting, show, working
from surgeon.cli.render.plans import render_plan
from surgeon.pipeline.run_report import RunProgress
from surgeon.surgery.plan import Plan


class TerminalProgress(RunProgress):
    """Print the plan, and show each step on stderr.

    Args:
        quiet: Whether to show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def step(self, what: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a spinner, or a bar if the number of bytes is known."""
        if total is not None:
            return counting(what, total, quiet=self._quiet)
        return self._spinner(what)

    def planned(self, plan: Plan) -> None:
        """Print the plan."""
        if not self._quiet:
            show(render_plan(plan))

    @contextmanager
    def _spinner(self, title: str) -> Iterator[Callable[[int], None]]:
        with working(title, quiet=self._quiet):
            yield lambda _: None
