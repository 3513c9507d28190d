"""Draw the scores of each block's features."""

from __future__ import annotations

from surgeon.advising.advice import Advice
from surgeon.training.curve import chart

NAMED = 16
"""The most site names below the picture."""


def picture_of(advice: Advice, title: str) -> str:
    """Draw the probe's score at each site, trained and untrained, and the score of a constant guess; as SVG."""
    curve = advice.curve
    fresh = [sum(worth.untrained) / len(worth.untrained) for worth in curve]
    lines = {
        f"{advice.measure}, trained": [(float(i), worth.score) for i, worth in enumerate(curve)],
        f"{advice.measure}, untrained": [(float(i), score) for i, score in enumerate(fresh)],
        "constant guess": [(0.0, advice.floor), (float(len(curve) - 1), advice.floor)],
    }
    errors = {f"{advice.measure}, trained": [worth.error for worth in curve]}
    stride = -(-len(curve) // NAMED)
    ticks = {float(i): worth.site for i, worth in enumerate(curve) if i % stride == 0 or i == len(curve) - 1}
    return chart(
        lines, title, ticks=ticks, across="site, in the order of the forward", dashed=list(lines)[1:], errors=errors
    )
