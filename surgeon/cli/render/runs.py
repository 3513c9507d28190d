"""Merge texts that differ only in their numbers: ``layer1–4.0–2.conv1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"\d+")


def pattern(text: str) -> str:
    """Replace every number in ``text`` by ``#``; texts with the same pattern can be merged."""
    return NUMBER.sub("#", text)


def merged(texts: Sequence[str]) -> str:
    """Merge texts with the same pattern into one, with ranges in place of the numbers that vary."""
    columns = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    spans = [ranges({int(number) for number in column}) if len(set(column)) > 1 else column[0] for column in columns]
    parts = NUMBER.split(texts[0])
    return "".join(part + span for part, span in zip(parts, [*spans, ""], strict=True))


def ranges(numbers: Iterable[int]) -> str:
    """Format integers as ranges: ``0–3,7``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}–{last}" for first, last in spans)
