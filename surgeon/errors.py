"""The errors that a user meets, each with an exit code of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SurgeonError(Exception):
    """Something that the user can put right.

    Args:
        message: What was wrong, in one line.
        where: Where it was wrong: ``file:line:column``, an operation, a site.
        hint: What to do next; the nearest valid names, a command to run.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n    {self.hint}" if self.hint else head

    def at(self, where: str) -> SurgeonError:
        """Put ``where`` in front of what the error already knows of its place."""
        self.where = f"{where}: {self.where}" if self.where else where
        return self


class RecipeError(SurgeonError):
    """A recipe that does not validate. ``problems`` holds one error for each mistake."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        problems: Iterable[SurgeonError] = (),
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems) if self.problems else super().__str__()


class CheckpointError(SurgeonError):
    """A file that is missing, damaged, unsafe or not a checkpoint."""

    exit_code = 4


class ArchitectureError(SurgeonError):
    """A network that cannot be identified, built or matched with its tensors."""

    exit_code = 5


class OperationError(SurgeonError):
    """An operation that cannot do what it was asked."""

    exit_code = 6


class SiteError(OperationError):
    """A selector that names no module, or not the number of modules it should."""


class PluginError(SurgeonError):
    """A plugin that fails to load, collides with another, or raises."""

    exit_code = 7


class OutputError(SurgeonError):
    """A place that cannot be written to, or should not be."""

    exit_code = 8


class TrainingError(SurgeonError):
    """Data or settings that cannot be trained on."""

    exit_code = 9


class VerificationError(SurgeonError):
    """An artifact that is not what its manifest says."""

    exit_code = 10


def nearest(name: str, candidates: Iterable[str], *, count: int = 3) -> list[str]:
    """The candidates that resemble ``name`` most, best first."""
    return difflib.get_close_matches(name, sorted(set(candidates)), n=count, cutoff=0.5)


def suggest(name: str, candidates: Iterable[str], *, see: str | None = None) -> str | None:
    """A hint in the project's voice: the nearest candidates, and a command that lists them all."""
    close = nearest(name, candidates)
    parts = ([f"nearest: {', '.join(close)}"] if close else []) + ([f"see: {see}"] if see else [])
    return "     ".join(parts) or None
