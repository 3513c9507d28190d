"""Sites that differ only in their numbers, said once: ``layer1–4.0–2.conv1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"\d+")


def pattern(text: str) -> str:
    """``text`` with every number left open; texts of one pattern may be said together."""
    return NUMBER.sub("#", text)


def together(texts: Sequence[str]) -> str:
    """One text for several of one pattern, each number that varies given as its ranges."""
    columns = zip(*(NUMBER.findall(text) for text in texts), strict=True)
    spans = [ranges({int(number) for number in column}) if len(set(column)) > 1 else column[0] for column in columns]
    parts = NUMBER.split(texts[0])
    return "".join(part + span for part, span in zip(parts, [*spans, ""], strict=True))


def ranges(numbers: Iterable[int]) -> str:
    """``0–3,7``"""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}–{last}" for first, last in spans)
