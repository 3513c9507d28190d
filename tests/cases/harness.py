"""What a case is, how one is run, and what may come of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cases.material import Material
from surgeon import SurgeonError

OURS = "bug in surgeon"


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    word: Literal["right", "refused", "wrong"]
    seen: str


@dataclass(frozen=True)
class Case:
    """A situation of a user: what to do, and whether it belongs to the default tests."""

    name: str
    kind: str
    run: Callable[[Material], Outcome]
    slow: bool


@dataclass(frozen=True)
class Result:
    """A case that was run; ``seconds`` are of computing, which a busy machine does not change."""

    case: Case
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class Ran:
    """What a command of surgeon printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All that it printed, in one line."""
        return " ".join((self.err + " " + self.out).split())

    def data(self) -> Any:
        """What it printed for machines."""
        return json.loads(self.out)


CASES: list[Case] = []


def case(
    kind: str,
    *,
    of: Mapping[str, Any] | Iterable[str] | None = None,
    slow: bool = False,
    quick: Iterable[str] | None = None,
) -> Callable[[Callable[..., Outcome]], Callable[..., Outcome]]:
    """Register a case, or one for each member of ``of``, which is handed to the function.

    Args:
        kind: The number of the issue and of its item, as in "13.2".
        of: The members: by name, or names that are the members themselves.
        slow: Whether it is left out of the default tests.
        quick: The members that are not left out, if others are.
    """

    def register(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
        if of is None:
            CASES.append(Case(function.__name__, kind, function, slow))
            return function
        members = of if isinstance(of, Mapping) else {name: name for name in of}
        for name, member in members.items():
            run = lambda material, member=member: function(material, member)  # noqa: E731
            late = slow or (quick is not None and name not in quick)
            CASES.append(Case(f"{function.__name__}[{name}]", kind, run, late))
        return function

    return register


def right(seen: object) -> Outcome:
    """The result is what the truth says; ``seen`` is what was compared."""
    return Outcome("right", str(seen))


def expect(condition: object, seen: object) -> None:
    """Count the case as wrong unless ``condition`` holds."""
    if not condition:
        raise AssertionError(str(seen))


def equal(seen: Any, truth: Any, what: str) -> None:
    """Count the case as wrong unless both are the same."""
    expect(seen == truth, f"{what}: {seen!r}, and not {truth!r}")


def refused(call: Callable[[], object], *facts: str) -> Outcome:
    """The call has to be refused, in a message with all of ``facts``."""
    try:
        result = call()
    except SurgeonError as error:
        return _as_refused(str(error), facts)
    raise AssertionError(f"not refused: {result!r}")


def refuses(ran: Ran, *facts: str) -> Outcome:
    """The command has to have been refused, in a message with all of ``facts``."""
    expect(ran.code, f"not refused: {ran.said[-300:]}")
    return _as_refused(ran.err, facts)


def either(attempt: Callable[[], Outcome], *facts: str) -> Outcome:
    """The attempt is right, or refused in a message with all of ``facts``."""
    try:
        return attempt()
    except SurgeonError as error:
        return _as_refused(str(error), facts)


def _as_refused(message: str, facts: Iterable[str]) -> Outcome:
    message = " ".join(message.split())
    expect(OURS not in message, message)
    for fact in facts:
        expect(fact in message, f"refused without saying {fact!r}: {message}")
    return Outcome("refused", message)


def surgeon_command(*arguments: object, folder: Path | None = None) -> Ran:
    """Run ``surgeon ARGUMENTS`` in this process, below ``folder``."""
    from surgeon.cli import run

    out, err = io.StringIO(), io.StringIO()
    with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    ran = Ran(code, out.getvalue(), err.getvalue())
    expect(OURS not in ran.said, ran.said[-400:])
    return ran


def succeed(*arguments: object, folder: Path | None = None) -> Ran:
    """Run ``surgeon ARGUMENTS``; what it refuses is raised as in a call from Python."""
    ran = surgeon_command(*arguments, folder=folder)
    if ran.code:
        raise SurgeonError(" ".join(ran.err.split())[-600:])
    return ran


@contextlib.contextmanager
def _inside(folder: Path | None) -> Iterator[None]:
    before = Path.cwd()
    if folder is not None:
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_case(chosen: Case, material: Material) -> Result:
    """Run one case in a folder of its own, which stays if the outcome is wrong; whatever it raises makes it wrong."""
    started = time.process_time()
    try:
        outcome = chosen.run(material.beginning(chosen.name))
    except AssertionError as error:
        outcome = Outcome("wrong", str(error))
    except SurgeonError as error:
        outcome = Outcome("wrong", f"refused: {' '.join(str(error).split())}")
    except Exception as error:
        outcome = Outcome("wrong", f"{type(error).__name__}: {' '.join(str(error).split())}")
    if outcome.word != "wrong":
        shutil.rmtree(material.folder, ignore_errors=True)
    return Result(chosen, outcome, time.process_time() - started)


def table(results: Iterable[Result], width: int = 100) -> str:
    """A line for each case, and their number by outcome."""
    results = list(results)
    widest = max((len(result.case.name) for result in results), default=0)
    lines = [
        f"{result.case.kind:<6} {result.case.name:<{widest}}  {result.outcome.word:<7} "
        f"{result.seconds:6.1f} s  {result.outcome.seen[: width if result.outcome.word != 'wrong' else 1000]}"
        for result in results
    ]
    counts = {word: sum(result.outcome.word == word for result in results) for word in ("right", "refused", "wrong")}
    return "\n".join(
        [*lines, f"{len(results)} cases: " + ", ".join(f"{count} {word}" for word, count in counts.items())]
    )
