"""Decide between the four cases of transfer learning: few or many samples, a similar or a different task.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

KEPT = 0.9
"""In a similar task, the last features keep at least this share of the best features' gain over a constant guess."""

Size = Literal["small", "large"]
Likeness = Literal["similar", "different"]


@dataclass(frozen=True)
class Worth:
    """The scores of one site's features for the new labels.

    Attributes:
        site: The site.
        width: The number of features after pooling.
        logme: Their log evidence. Higher is better; only differences between sites are meaningful.
        scores: The linear probe's score on each held-out fold.
        untrained: The same scores for initial weights.
    """

    site: str
    width: int
    logme: float
    scores: tuple[float, ...]
    untrained: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean score."""
        return fmean(self.scores)

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return standard_error(self.scores)


@dataclass(frozen=True)
class Case:
    """One of the four cases, with the evidence for it.

    Attributes:
        size: small or large.
        likeness: similar or different.
        best: The site with the best features.
        last: The site that the head reads.
        helps: Whether the trained features are better than those of initial weights.
        reasons: The reasons in words, with numbers.
    """

    size: Size
    likeness: Likeness
    best: Worth
    last: Worth
    helps: bool
    reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the case: ``small, similar``."""
        return f"{self.size}, {self.likeness}"


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; 0 for one value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def decide(
    curve: Sequence[Worth], *, samples: int, classes: int, large: int, floor: float, accuracy: bool = True
) -> Case:
    """Decide which case the data and the task are.

    The data are large if there are at least ``large`` samples per class (for values: ten times as many in total). The
    task is similar if trained features score higher than untrained ones, and the last features, which are the most
    specific to the old task (Yosinski et al. 2014), predict the new labels as well as the best ones: to :data:`KEPT`,
    or within one standard error of the paired difference.

    Args:
        curve: The sites in order of execution; the last is the one that the head reads.
        samples: The number of labelled training samples.
        classes: The number of classes; 0 for values.
        large: See above.
        floor: The score of a constant prediction.
        accuracy: Whether scores are accuracies; R² otherwise.
    """
    per_class = samples / classes if classes else samples / 10
    size: Size = "large" if per_class >= large else "small"
    counted = (
        f"{samples} labelled samples, {per_class:.0f} for each of {classes} classes"
        if classes
        else f"{samples} samples"
    )
    limit = f"{large} per class" if classes else f"{10 * large}"
    reasons = [f"the data are {size}: {counted}; the limit for large is {limit} (--large)"]

    best, last = max(curve, key=lambda worth: worth.score), curve[-1]
    fresh = max(curve, key=lambda worth: fmean(worth.untrained))
    gains = [a - b for a, b in zip(best.scores, fresh.untrained, strict=True)]
    helps = fmean(gains) > standard_error(gains)
    verb = "reaches"

    def shown(score: float) -> str:
        return f"{100 * score:.1f} %" if accuracy else f"R² {score:.2f}"

    against = (
        f"{best.site} {verb} {shown(best.score)}, the best untrained features reach {shown(fmean(fresh.untrained))}"
    )
    if not helps:
        reasons.append(f"the task is different: the trained features are no better than untrained ones ({against})")
        return Case(size, "different", best, last, helps, tuple(reasons))
    losses = [a - b for a, b in zip(best.scores, last.scores, strict=True)]
    kept_share = (last.score - floor) / (best.score - floor) if best.score > floor else 0.0
    likeness: Likeness = "similar" if kept_share >= KEPT or fmean(losses) <= standard_error(losses) else "different"
    reasons.append(f"the trained features help: {against}")
    if best is last:
        reasons.append(f"the task is similar: the last features are the best ({last.site})")
    else:
        still = "still" if likeness == "similar" else "only"
        reasons.append(
            f"the task is {likeness}: the last features ({last.site}, {shown(last.score)}) {still} keep "
            f"{100 * max(0.0, kept_share):.0f} % of what {best.site} gains over a constant guess ({shown(floor)})"
        )
    return Case(size, likeness, best, last, helps, tuple(reasons))
