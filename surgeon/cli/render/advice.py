"""Draw advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from surgeon.advising.prescription import WHAT

if TYPE_CHECKING:
    from surgeon.advising.advice import Advice


def render_advice(advice: Advice, recipe: str, picture: str, command: str) -> RenderableType:
    """Draw each site's scores, the case with its reasons, the recipe and the command for it."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("features of", no_wrap=True, overflow="fold")
    for heading in ("width", f"probe {advice.measure}", "untrained", "LogME"):
        table.add_column(heading, justify="right", no_wrap=True)
    for worth in advice.curve:
        scores = [_score(advice, worth.score, worth.error), _score(advice, sum(worth.untrained) / len(worth.untrained))]
        style = "bold" if worth is advice.case.best else ""
        table.add_row(worth.site or ".", str(worth.width), *scores, f"{worth.logme:.3f}", style=style)
    case = Text.assemble("\n", (f"the case: {advice.case.name}", "bold green"), f"\n{WHAT[advice.case.name]}")
    reasons = [Text(f"· {reason}", style="dim") for reason in advice.case.reasons]
    probed = f"{advice.probed} labelled samples, {len(advice.case.best.scores)}-fold cross-validation"
    files = Text.assemble(
        "\nthe recipe    ", (recipe, "bold green"), "\nthe curve     ", picture,
        ("\napply it      ", "dim"), command,
    )  # fmt: skip
    return Group(table, Text(probed, style="dim"), case, *reasons, files)


def _score(advice: Advice, score: float, error: float | None = None) -> str:
    if advice.classes:
        return f"{100 * score:.1f}" + (f" ± {100 * error:.1f} %" if error is not None else " %")
    return f"{score:.2f}" + (f" ± {error:.2f}" if error is not None else "")
