"""Keep the journal of one recipe's operations: what they changed, where tensors come from, what traces showed.

It is private to the engine. Operations use the methods of :class:`~surgeon.surgery.context.Surgery`, which write here.
The engine reads it to refuse unrecorded edits, to make the plan and to write the manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakSet

from torch import nn

from surgeon.architectures.donor import Donor
from surgeon.errors import ArchitectureError, OperationError
from surgeon.surgery.answers import Answers, same_form, shown
from surgeon.surgery.origins import Origin, Origins, seed_for
from surgeon.surgery.plan import Edit

T = TypeVar("T")


@dataclass
class Journal:
    """Record what operations did to one network.

    Attributes:
        origins: Where each tensor gets its values from.
        recorded: The answers of the first run, for a replay; None on the first run.
        seed: The recipe's seed.
        operation: The name of the operation that runs now.
        finished: The names of the operations that ran before it.
        notes: Lines for the plan, of the operation that runs now.
        changed: Sites whose subtree it changed.
        retrained: Sites whose training state it changed.
        claims: The settings, classes and hooks that it changed, by the ``id`` of the module or config and the name;
            the module or config itself keeps that ``id`` from being used again.
        settings: Lines for the plan about settings and hooks.
        hooked: Modules whose methods it registered as hooks, with the site that calls them.
        branches: The outputs that operations added, with the operation that added each.
        removed: The sites that operations removed, with the operation that removed each.
        donors: The other checkpoints that were opened, by reference.
        read: The origins of tensors whose values operations looked at.
        answering: Whether the answer to a question is being computed, which is recorded then.
        planning: Whether only a plan is wanted, for which no choice reads weights.
        original: The modules that the network had before the recipe.
    """

    origins: Origins = field(default_factory=Origins)
    recorded: Mapping[str, Any] | None = None
    seed: int = 0
    operation: str = ""
    finished: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    retrained: list[str] = field(default_factory=list)
    claims: dict[tuple[int, str], Any] = field(default_factory=dict)
    settings: list[Edit] = field(default_factory=list)
    hooked: list[tuple[nn.Module, str]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    donors: dict[str, Donor] = field(default_factory=dict)
    read: list[Origin] = field(default_factory=list)
    answering: bool = False
    planning: bool = False
    original: WeakSet[nn.Module] = field(default_factory=WeakSet)

    def __post_init__(self) -> None:
        self._answers = Answers(self.recorded or {})
        self._seeds: Counter[str] = Counter()

    @property
    def replays(self) -> bool:
        """Return whether recorded operations are replayed, so that no forward pass is needed."""
        return self.recorded is not None

    def begin(self, operation: str) -> None:
        """Start the entries of the next operation."""
        if self.operation:
            self.finished.add(self.operation)
        self.operation = operation
        self._answers.begin(operation)
        self.notes, self.changed, self.retrained = [], [], []
        self.claims, self.settings, self.hooked = {}, [], []
        self.origins.watch()

    def claim(self, holder: Any, *names: str) -> None:
        """Record that the operation changed attributes of a module or config, or its class or hooks."""
        self.claims.update({(id(holder), name): holder for name in names})

    def next_seed(self) -> int:
        """Return the seed for what the present operation draws or builds next; the same one in a replay.

        It depends on the recipe's seed, the operation's name and how often operations of that name have asked.
        """
        self._seeds[self.operation] += 1
        return seed_for(self.seed, f"{self.operation}/{self._seeds[self.operation]}")

    def note(self, text: str) -> None:
        """Add a line to the plan, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def answers(self) -> dict[str, Any]:
        """Return what :meth:`recall` has answered so far, by stable names, for the manifest."""
        return self._answers.given

    def has(self, kind: str) -> bool:
        """Whether :meth:`recall` can answer: on a first run always, in a replay if the first run put that question."""
        return self.recorded is None or self._answers.has(kind)

    def recall(self, kind: str, answer: Callable[[], T], *, subject: str = "", outside: bool = False) -> T:
        """Return the recorded answer to a question about the traced network; compute and record it on the first run.

        Args:
            kind: The kind of question, in a word or two: ``shape``.
            answer: Computes the answer; the result must be JSON-able.
            subject: What the question is about: the address of a site.
            outside: The answer comes from a file or from the internet. A replay reads neither.

        Raises:
            ArchitectureError: In a replay, an answer from outside is not recorded.
        """

        def compute() -> T:
            outer, self.answering = self.answering, True
            try:
                return answer()
            finally:
                self.answering = outer

        def refuse() -> T:
            raise ArchitectureError(
                f"the manifest does not record the answer for {subject!r}",
                hint="make the artifact again from its recipe",
            )

        return self._answers.recall(kind, subject, refuse if outside and self.replays else compute)

    def choose(self, question: str, function: Callable[[], T], assumed: T, *, subject: str = "") -> T:
        """Answer a question that needs weights; a plan assumes ``assumed``, which has the form of every answer.

        Raises:
            OperationError: The answer has another form.
        """
        about = f"{question!r} of {subject}" if subject else repr(question)
        if self.planning:
            self.note(f"{about} is chosen by weights when the recipe is applied; this plan assumes {shown(assumed)}")
            return self.recall(question, lambda: assumed, subject=subject)
        chosen = self.recall(question, function, subject=subject)
        if not self.replays and not same_form(chosen, assumed):
            raise OperationError(
                f"the answer to {about} is {shown(chosen)}, which has another form than {shown(assumed)}, which plans "
                "assume",
                hint="pass choose(..., plan=...) a value of the same form: as many items, of the same types; or answer "
                "with recall, for which plans read the weights",
            )
        return chosen
