"""Count how cases end, and gather the faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """How the cases of one part ended.

    Attributes:
        full: Whether all cases are wanted, or a few.
        outcomes: How many ended in which way.
        faults: One line for each fault.
    """

    full: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def count(self, outcome: str) -> None:
        """Add a case that ended as it may."""
        self.outcomes[outcome] += 1

    def fault(self, case: str, what: str) -> None:
        """Add a case that ended as it must not."""
        self.outcomes["FAULT"] += 1
        self.faults.append(f"{case}: {what[-1500:]}")

    def add(self, case: str, outcome: str, what: str | None) -> None:
        """Add a case: a fault where ``what`` says what was wrong."""
        if what:
            self.fault(case, what)
        else:
            self.count(outcome)
