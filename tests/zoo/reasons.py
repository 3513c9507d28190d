"""Failures told in a few honest sentences."""

from __future__ import annotations

import re

from surgeon.errors import SurgeonError

SENTENCES: tuple[tuple[str, str], ...] = (
    (r"requires the (\w[\w-]*) library|needs? the (\w[\w-]*) (?:library|package)", "needs the optional dependency {0}"),
    (r"module transformers has no attribute (\w+)", "transformers lists the class and does not export it"),
    (r"has no forward of its own", "a set of networks without a forward of its own"),
    (r"takes '\w*session'", "takes an object that its processor makes of a video, and no tensors"),
)
"""What an error's text matches, and the sentence for it."""


def reason_of(error: Exception) -> str:
    """One line for an error: a sentence of the list, or its own words."""
    text = str(error) if isinstance(error, SurgeonError) else f"{type(error).__name__}: {error}"
    for pattern, sentence in SENTENCES:
        if found := re.search(pattern, text):
            return sentence.format(*[group for group in found.groups() if group])
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= 300 else f"{first[:297]}…"
