"""Count how cases end, and gather the faults."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Tally:
    """How the cases of one part ended.

    Attributes:
        share: How many of the cases are wanted, of 1; a few where it is 0.
        outcomes: How many ended in which way.
        faults: One line for each fault.
    """

    share: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def chosen(self, cases: Sequence[T], few: int) -> list[T]:
        """The cases to try, drawn by a fixed seed: the wanted share of them, or a few."""
        number = min(len(cases), max(1, round(len(cases) * self.share)) if self.share else few)
        order = sorted(random.Random(f"{len(cases)} {few}").sample(range(len(cases)), number))
        return [cases[index] for index in order]

    def repeats(self, most: int) -> int:
        """How often to repeat a case that has chance in it."""
        return max(1, round(most * self.share))

    def count(self, outcome: str) -> None:
        """Add a case that ended as it may."""
        self.outcomes[outcome] += 1

    def fault(self, case: str, what: str) -> None:
        """Add a case that ended as it must not."""
        self.outcomes["FAULT"] += 1
        self.faults.append(f"{case}: {what[-1500:]}")
        print(f"FAULT {self.faults[-1]}", file=sys.stderr, flush=True)

    def add(self, case: str, outcome: str, what: str | None) -> None:
        """Add a case: a fault where ``what`` says what was wrong."""
        if what:
            self.fault(case, what)
        else:
            self.count(outcome)
