"""Draw the course of a training run, and other curves, as SVG, which browsers and GitHub show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 34, 40
SLANTED = 70
"""The height for slanted names below the picture."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
DARK = (
    "<style>@media (prefers-color-scheme: dark) "
    "{ .ground { fill: #1b2028 } .grid { stroke: #3a4150 } text { fill: #e6e9ee } }</style>\n"
)
"""Colours where the reader's are dark; the lines keep theirs."""

Points = Sequence[tuple[float, float]]


def draw(history: Sequence[Mapping[str, float]], title: str) -> str:
    """Draw losses over the epochs as SVG: the sum, each objective's if there are several, and penalties.

    Args:
        history: What training logged: ``epoch``, ``loss``, ``OUTPUT_loss``, ``eval_OUTPUT_loss``, …
        title: The title above.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in history:
        for name, value in entry.items():
            if name == "loss" or name.endswith("_loss"):
                lines.setdefault(name, []).append((entry["epoch"], value))
    right = max((x for line in lines.values() for x, _ in line), default=0.0) or 1e-9
    ticks = {right * step / 4: f"{right * step / 4:.3g}" for step in range(5)}
    dashed = [name for name in lines if name.startswith("eval_")]
    return chart(lines, title, ticks=ticks, across="epoch", dashed=dashed, low=0.0)


def chart(
    lines: Mapping[str, Points],
    title: str,
    *,
    ticks: Mapping[float, str],
    across: str,
    dashed: Sequence[str] = (),
    errors: Mapping[str, Sequence[float]] | None = None,
    low: float | None = None,
) -> str:
    """Draw named lines as SVG.

    Args:
        lines: The points of each line.
        title: The title above.
        ticks: Positions and labels below; long labels are slanted.
        across: The name of the horizontal axis.
        dashed: The dashed lines.
        errors: The error of each point of a line, up and down.
        low: A value that the vertical axis must include.
    """
    errors = errors or {}
    slanted = max(map(len, ticks.values())) > 6
    bottom = BOTTOM + (SLANTED if slanted else 0)
    points = [point for line in lines.values() for point in line] or [(0.0, 0.0)]
    spread = [y + sign * off for name, offs in errors.items() for (_, y), off in zip(lines[name], offs, strict=True)
              for sign in (-1, 1)]  # fmt: skip
    heights = [*(y for _, y in points), *spread, *([low] if low is not None else [])]
    least, most = min(heights), max(heights)
    most = most if most > least else least + 1
    first, last = min(*ticks, *(x for x, _ in points)), max(*ticks, *(x for x, _ in points))
    last = last if last > first else first + 1

    def place(x: float, y: float) -> tuple[float, float]:
        along = LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / (last - first)
        return along, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - least) / (most - least)

    parts = [_text(LEFT, 20, title, size=14)]
    for step in range(5):
        value = least + (most - least) * step / 4
        _, y = place(first, value)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:.3g}", anchor="end"))
    for at, name in ticks.items():
        x, y = place(at, least)
        turn = f' transform="rotate(-40 {x:.1f} {y + 14:.1f})"' if slanted else ""
        parts.append(_text(x, y + 16, name, anchor="end" if slanted else "middle", more=turn))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6 + bottom - BOTTOM, across, anchor="middle"))
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        dash = ' stroke-dasharray="5 3"' if name in dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in (place(*p) for p in line)]
        for (x, y), off in zip(line, errors.get(name, ()), strict=False):
            (across_at, top), (_, foot) = place(x, y + off), place(x, y - off)
            line_at = f'x1="{across_at:.1f}" y1="{top:.1f}" x2="{across_at:.1f}" y2="{foot:.1f}"'
            parts.append(f'<line {line_at} stroke="{colour}"/>')
        y = TOP + 10 + 18 * number
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" y1="{y}" x2="{WIDTH - RIGHT + 30}" y2="{y}" stroke="{colour}"')
        parts[-1] += f' stroke-width="2"{dash}/>'
        parts.append(_text(WIDTH - RIGHT + 36, y + 4, name.replace("_", " ")))
    height = HEIGHT + bottom - BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">\n'
        f'{DARK}<rect class="ground" width="{WIDTH}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
