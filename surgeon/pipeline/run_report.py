"""Define what a run calls on its way, and what it returns. Imports no training libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgeon.interfaces.html_table import html_report
from surgeon.pipeline.nonfinite import describe_nonfinite
from surgeon.pipeline.reload_check import Reload
from surgeon.surgery.plan import Plan

if TYPE_CHECKING:
    from surgeon.training.report import TrainReport


class RunProgress:
    """Hooks that a run calls; they do nothing here. Override those that you need."""

    def step(self, what: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]:
        """Return the context of one step of the run, such as ``writing``.

        Args:
            what: The name of the step.
            total: The bytes that it will process; None if they are not counted.

        Returns:
            A context manager that yields a function to call with each number of bytes processed.
        """
        return _no_progress()

    def planned(self, plan: Plan) -> None:
        """Receive the plan, before anything is written."""


@contextmanager
def _no_progress() -> Iterator[Callable[[int], None]]:
    yield lambda _: None


@dataclass(frozen=True)
class RunReport:
    """The result of a run.

    Attributes:
        output: The artifact.
        plan: What the operations changed; None if the run only trained.
        training: The report of the training; None without training.
        reload: How the reloaded artifact compares with the network; None in those of several processes that do not
            write.
    """

    output: Path
    plan: Plan | None
    training: TrainReport | None
    reload: Reload | None

    def _repr_html_(self) -> str:
        """Show the plan, the training and what was compared after reloading in a notebook."""
        parts = [part._repr_html_() for part in (self.plan, self.training) if part is not None]
        return html_report(f"saved to {self.output}", *parts, notes=self._reloaded())

    def _reloaded(self) -> list[str]:
        if self.reload is None:
            return []
        warned = [describe_nonfinite(self.reload.nonfinite)] if self.reload.nonfinite else []
        return [f"reloaded: {self.reload}", *warned]

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to JSON-able data."""
        return {
            "output": str(self.output),
            **({"plan": self.plan.to_dict()} if self.plan else {}),
            "training": self.training.to_dict() if self.training else None,
            "reloaded": dataclasses.asdict(self.reload) if self.reload else None,
        }
