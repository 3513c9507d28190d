"""State what a method is required to show, and judge whether it does."""

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
    """None: the number is reported, without a requirement."""


@dataclass(frozen=True)
class Finding:
    """A claim with its numbers over the seeds."""

    text: str
    mean: float
    std: float
    """The sample standard deviation over seeds."""
    least: float
    reaching: int
    """How many seeds reach the requirement by themselves; without one, those of at least 0."""
    seeds: int
    at_least: float | None

    @property
    def reached(self) -> bool | None:
        """Whether the mean reaches the requirement; None if there is none."""
        return None if self.at_least is None else self.mean >= self.at_least


def judge(claim: Claim, seeds: Sequence[Cells]) -> Finding:
    """Compute a claim's numbers over at least one seed, and compare them with its requirement."""
    values = [claim.value(cells) for cells in seeds]
    required = 0.0 if claim.at_least is None else claim.at_least
    return Finding(
        claim.text,
        mean(values),
        spread(values),
        min(values),
        sum(v >= required for v in values),
        len(values),
        claim.at_least,
    )


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation; 0 of one value."""
    return stdev(values) if len(values) > 1 else 0.0
