"""What a method is to show, and whether it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

Cells = Mapping[str, float]
"""The numbers of one seed, in percent."""


@dataclass(frozen=True)
class Claim:
    """A number of each seed (mostly a difference of two cells of that seed), and what its mean must reach."""

    text: str
    value: Callable[[Cells], float]
    at_least: float | None = None
    """None: it is told, and nothing is asked of it."""


@dataclass(frozen=True)
class Finding:
    """A claim, held against the seeds."""

    text: str
    mean: float
    std: float
    """The sample standard deviation over seeds."""
    least: float
    reaching: int
    """How many seeds reach what is asked by themselves; where nothing is asked, 0."""
    seeds: int
    at_least: float | None

    @property
    def met(self) -> bool | None:
        """Whether the mean reaches what is asked; None where nothing is."""
        return None if self.at_least is None else self.mean >= self.at_least


def judge(claim: Claim, seeds: Sequence[Cells]) -> Finding:
    """Hold a claim against the numbers of at least one seed."""
    values = [claim.value(cells) for cells in seeds]
    asked = 0.0 if claim.at_least is None else claim.at_least
    return Finding(
        claim.text,
        mean(values),
        spread(values),
        min(values),
        sum(v >= asked for v in values),
        len(values),
        claim.at_least,
    )


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 of one value."""
    return stdev(values) if len(values) > 1 else 0.0
