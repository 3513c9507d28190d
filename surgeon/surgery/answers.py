"""Record answers to questions about a traced network, under names that are the same in every version of surgeon.

A replay of recorded operations takes the recorded answers instead of running a forward pass. A later version of
surgeon, which might trace differently, therefore rebuilds the same network.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from surgeon.errors import OperationError
from surgeon.interfaces.returned import described

T = TypeVar("T")

_NUMBERED = re.compile(r"(\d+): (.*)", re.DOTALL)
"""A key in the first format of surgeon 0.1.0: a running number and a sentence."""

_SENTENCES = [
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (r"role (.*)", "role"),
        (r"shape (.*)", "shape"),
        (r"architecture (.*)", "architecture"),
        (r"tap (.*)", "tap"),
        (r"cut (.*) shows in the lengths of lists", "cut lengths"),
        (r"cut (.*)", "cut"),
        (r"(.*) without what is idle", "idle"),
        (r"features at (.*)", "features"),
        (r"features of head (.*)", "features of head"),
        (r"features that come out()", "features of network"),
        (r"stages of the column (.*)", "stages"),
        (r"(?:outputs with several stems|outputs with what was appended)()", "outputs"),
        (r"outputs before thinning()", "outputs before"),
        (r"outputs after thinning()", "outputs after"),
        (r"outputs at another resolution()", "outputs at image size"),
        (r"outputs with other channels()", "outputs with channels"),
        (r"stacks of blocks()", "stacks"),
        (r"classes to add()", "classes"),
        (r"the table (.*)", "table"),
        (r"(.*) for \d+ tensors", "donor"),
        (r"runs up to (.*)", "runs up to"),
        (r"runs before (.*)", "runs before"),
        (r"own outputs()", "outputs of network"),
        (r"last site read()", "last read"),
    )
]
"""Patterns of those sentences, with the kind of answer that replaces each; the group is the subject."""


class Answers:
    """Return answers to the operations of one run, from the record of an earlier run where there is one.

    The name of an answer is ``INDEX.OPERATION/KIND/SUBJECT``. An operation may change the module that it asks about:
    the second answer to the same question is ``KIND#2``, and is recorded only if it differs from the first.

    Args:
        recorded: The answers in a manifest. Empty on the first run.
    """

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self.given: dict[str, Any] = {}
        """All answers so far, by name."""
        self._numbered = _by_question(recorded)
        self._recorded = {} if self._numbered else recorded
        self._times: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._last: dict[tuple[str, str, str], str] = {}
        self._index = -1
        self._step = ""

    def begin(self, operation: str) -> None:
        """Start the next operation, whose name is part of the names of its answers."""
        self._index += 1
        self._step = f"{self._index}.{operation}"

    def recall(self, kind: str, subject: str, answer: Callable[[], T]) -> T:
        """Return the recorded answer; if there is none, call ``answer``, whose result must be JSON-able."""
        question = (self._step, kind, subject)
        self._times[question] += 1
        self._counts[kind, subject] += 1
        text = self._from_record(*question)
        if text is None:
            text = _as_json(kind, answer())
        if self._last.get(question) != text:
            self._last[question] = text
            self.given[_name(*question, self._times[question])] = json.loads(text)
        # through JSON, so that the first run and a replay get the same types
        return json.loads(text)  # type: ignore[no-any-return]

    def has(self, kind: str, subject: str = "") -> bool:
        """Whether the present operation's first answer to a question is recorded."""
        return (kind, subject) in self._numbered or _name(self._step, kind, subject, 1) in self._recorded

    def _from_record(self, step: str, kind: str, subject: str) -> str | None:
        """Get the recorded answer as JSON, or None."""
        numbered = self._numbered.get((kind, subject), [])
        if self._counts[kind, subject] <= len(numbered):
            return json.dumps(numbered[self._counts[kind, subject] - 1])
        for time in range(self._times[step, kind, subject], 0, -1):
            if (name := _name(step, kind, subject, time)) in self._recorded:
                return json.dumps(self._recorded[name])
        return None


def _as_json(kind: str, answer: Any) -> str:
    """Write an answer as JSON.

    Raises:
        OperationError: It has values that JSON does not have.
    """
    try:
        return json.dumps(answer)
    except (TypeError, ValueError) as error:
        raise OperationError(
            f"the answer to {kind!r} is {described(answer)}, which cannot be recorded: {error}",
            hint="return numbers, texts, lists and mappings of these: tensor.tolist(), float(tensor)",
        ) from error


def same_form(answer: Any, other: Any) -> bool:
    """Whether two answers have the same types, and as many items: what follows from them has the same shapes."""
    if isinstance(answer, Mapping) and isinstance(other, Mapping):
        return answer.keys() == other.keys() and all(same_form(answer[key], other[key]) for key in answer)
    if isinstance(answer, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(answer) == len(other) and all(same_form(a, b) for a, b in zip(answer, other, strict=True))
    numbers = (int, float)
    both_numbers = isinstance(answer, numbers) and isinstance(other, numbers)
    return isinstance(answer, bool) is isinstance(other, bool) if both_numbers else type(answer) is type(other)


def shown(answer: Any) -> str:
    """Show an answer in a line."""
    text = json.dumps(answer, default=repr)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(answer)} items)" if hasattr(answer, "__len__") else text


def _name(step: str, kind: str, subject: str, time: int) -> str:
    return f"{step}/{kind}{f'#{time}' if time > 1 else ''}/{subject}"


def _by_question(recorded: Mapping[str, Any]) -> dict[tuple[str, str], list[Any]]:
    """Group answers with running numbers by kind and subject, in their order; empty if the names are stable."""
    numbered = {int(match[1]): key for key in recorded if (match := _NUMBERED.fullmatch(key))}
    answers: dict[tuple[str, str], list[Any]] = {}
    for number in sorted(numbered):
        key = numbered[number]
        answers.setdefault(_question(key.partition(": ")[2]), []).append(recorded[key])
    return answers


def _question(sentence: str) -> tuple[str, str]:
    """Get the kind and subject that a sentence of 0.1.0 stands for; a sentence of a plugin is itself the kind."""
    for pattern, kind in _SENTENCES:
        if match := pattern.fullmatch(sentence):
            return kind, match[1]
    return sentence, ""
