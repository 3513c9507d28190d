"""Format numbers for people."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int) -> str:
    """Format a number of parameters to three figures: ``11.2 M``."""
    return _scaled(number, ("", " k", " M", " G", " T"))


def size(number: int) -> str:
    """Format a number of bytes to three figures, in powers of 1000: ``44.7 MB``."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB"))


def share(part: int, whole: int) -> str:
    """Format a part of a whole in percent: ``0.05 %``; 0 % and 100 % only if exact."""
    if not whole or part in (0, whole):
        return "100 %" if whole and part else "0 %"
    percent = 100 * part / whole
    if percent < 0.01:
        return "< 0.01 %"
    if percent > 99.9:
        return "> 99.9 %"
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.1f} %"


def shape(sizes: Sequence[int]) -> str:
    """Format a shape: ``1 × 512 × 7 × 7``."""
    return " × ".join(str(size) for size in sizes) or "scalar"


def _scaled(number: int, units: Sequence[str]) -> str:
    value = float(number)
    for unit in units:
        if abs(value) < 999.5 or unit == units[-1]:
            break
        value /= 1000
    if unit == units[0]:
        return f"{number}{unit}"
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{unit}"
