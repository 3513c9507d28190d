"""Define the errors and warnings that users see; every class of errors has its exit code."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_PICTURES |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: 1 file, 2 files."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """Replace control characters by their pictures (``␛``).

    A name from a stranger's file must not move the cursor or set the title of a terminal.
    """
    return text.translate(_PICTURES)


class SurgeonError(Exception):
    """Base class of errors that the user can fix.

    Args:
        message: What was wrong, in one line.
        where: The place: ``file:line:column``, an operation, a site.
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
        """Prepend ``where`` to the error's place."""
        self.where = f"{where}: {self.where}" if self.where else where
        return self


class RecipeError(SurgeonError):
    """Raised for an invalid recipe; ``problems`` holds one error per mistake."""

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
    """Raised for a checkpoint that is missing, damaged, unsafe or not a checkpoint."""

    exit_code = 4


class ArchitectureError(SurgeonError):
    """Raised for a network that cannot be identified, built or matched with its tensors."""

    exit_code = 5


class OperationError(SurgeonError):
    """Raised when an operation cannot be applied."""

    exit_code = 6


class SiteError(OperationError):
    """Raised when a selector matches no module, or not the required number of modules."""


class PluginError(SurgeonError):
    """Raised when a plugin fails to load, conflicts with another, or raises."""

    exit_code = 7


class OutputError(SurgeonError):
    """Raised for an output path that cannot or should not be written to."""

    exit_code = 8


class TrainingError(SurgeonError):
    """Raised for data or settings that cannot be trained on."""

    exit_code = 9


class VerificationError(SurgeonError):
    """Raised for an artifact that differs from its manifest."""

    exit_code = 10


class ExportError(SurgeonError):
    """Raised for a network that cannot be exported in the requested format."""

    exit_code = 11


class HubError(SurgeonError):
    """The Hugging Face hub refuses what was asked of it, or cannot be reached."""

    exit_code = 12


class SurgeonWarning(UserWarning):
    """Warns that a setting or argument has no effect here, and how to give it effect."""


def nearest(name: str, candidates: Iterable[str], *, count: int = 3) -> list[str]:
    """Return the candidates most similar to ``name``, best first."""
    return difflib.get_close_matches(name, sorted(set(candidates)), n=count, cutoff=0.5)


def suggest(name: str, candidates: Iterable[str], *, see: str | None = None) -> str | None:
    """Write a hint with the nearest candidates and a command that lists them all."""
    close = nearest(name, candidates)
    parts = ([f"nearest: {', '.join(close)}"] if close else []) + ([f"see: {see}"] if see else [])
    return "     ".join(parts) or None


def name_nearest_option(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap ``function`` so that an unknown keyword argument raises a TypeError with the nearest name.

    Python suggests names only from 3.13 on.
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
