"""The course of a training run as a picture: an SVG file, which browsers and GitHub show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 34, 40
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


def draw(history: Sequence[Mapping[str, float]], title: str) -> str:
    """Losses over the epochs as SVG: the sum and, where there are several, each objective's, and penalties.

    Args:
        history: What training logged: ``epoch``, ``loss``, ``OUTPUT_loss``, ``eval_OUTPUT_loss``, …
        title: What stands above.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name == "loss" or name.endswith("_loss"):
                lines.setdefault(name, []).append((entry["epoch"], value))
    points = [point for line in lines.values() for point in line]
    if not points:
        points = [(0.0, 0.0)]
    right = max(max(x for x, _ in points), 1e-9)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    high = high if high > low else low + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / right
        return across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)

    parts = [_text(LEFT, 20, title, size=14)]
    for step in range(5):
        value = low + (high - low) * step / 4
        _, y = place(0, value)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:.3g}", anchor="end"))
        x, bottom = place(right * step / 4, low)
        parts.append(_text(x, bottom + 16, f"{right * step / 4:.3g}", anchor="middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "epoch", anchor="middle"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        dash = ' stroke-dasharray="5 3"' if name.startswith("eval_") else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in (place(*p) for p in line)]
        y = TOP + 10 + 18 * number
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" y1="{y}" x2="{WIDTH - RIGHT + 30}" y2="{y}" stroke="{colour}"')
        parts[-1] += f' stroke-width="2"{dash}/>'
        parts.append(_text(WIDTH - RIGHT + 36, y + 4, name.replace("_", " ")))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
