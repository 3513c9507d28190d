"""The errors and warnings that a user sees; every class of errors has its own exit code."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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
        """Put ``where`` in front of the place that the error already names."""
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


class ExportError(SurgeonError):
    """A network that cannot be exported in the form that was chosen."""

    exit_code = 11


class HubError(SurgeonError):
    """The Hugging Face hub refuses what was asked of it, or cannot be reached."""

    exit_code = 12


class SurgeonWarning(UserWarning):
    """A part of what was given has no effect here; the warning says how to give it effect."""


def nearest(name: str, candidates: Iterable[str], *, count: int = 3) -> list[str]:
    """The candidates that resemble ``name`` most, best first."""
    return difflib.get_close_matches(name, sorted(set(candidates)), n=count, cutoff=0.5)


def suggest(name: str, candidates: Iterable[str], *, see: str | None = None) -> str | None:
    """A hint in the project's voice: the nearest candidates, and a command that lists them all."""
    close = nearest(name, candidates)
    parts = ([f"nearest: {', '.join(close)}"] if close else []) + ([f"see: {see}"] if see else [])
    return "     ".join(parts) or None


def name_nearest_option(function: Callable[P, T]) -> Callable[P, T]:
    """Make a call of ``function`` with an unknown keyword argument fail with the nearest name that it takes.

    Python itself suggests a name only from 3.13 on.
    """
    options = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in kwargs:
            if name not in options:
                hint = suggest(name, options) or f"it takes: {', '.join(options)}"
                raise TypeError(f"surgeon.{function.__name__} takes no option {name!r}; {hint}")
        return function(*args, **kwargs)

    return checked
