"""The worth of each block's features as a picture."""

from __future__ import annotations

from surgeon.advising.advice import Advice
from surgeon.training.curve import chart

NAMED = 16
"""How many sites' names have room below the picture."""


def picture_of(advice: Advice, title: str) -> str:
    """The probe's score at each site, trained and with fresh weights, and the score of who knows nothing; as SVG."""
    curve = advice.curve
    fresh = [sum(worth.untrained) / len(worth.untrained) for worth in curve]
    lines = {
        f"{advice.measure}, trained": [(float(i), worth.score) for i, worth in enumerate(curve)],
        f"{advice.measure}, fresh": [(float(i), score) for i, score in enumerate(fresh)],
        "knowing nothing": [(0.0, advice.floor), (float(len(curve) - 1), advice.floor)],
    }
    errors = {f"{advice.measure}, trained": [worth.error for worth in curve]}
    every = -(-len(curve) // NAMED)
    ticks = {float(i): worth.site for i, worth in enumerate(curve) if i % every == 0 or i == len(curve) - 1}
    return chart(
        lines, title, ticks=ticks, across="site, in the order of the forward", dashed=list(lines)[1:], errors=errors
    )
