"""Two renderings of the digits through stems of their own into one trunk."""

from __future__ import annotations

from pathlib import Path

from methods.claims import Claim
from methods.recipe_runs import accuracy, run_recipe

TITLE = "Multilingual-style stems"
RECIPES = ("stems.yaml", "one_stem.yaml")
ORDER = 80
RENDERINGS = ("pen", "relief")
NOTE = """Ten labelled samples of each digit in each rendering, of different scans. The test samples are all test
scans in both renderings. One stem for both: trained on the samples of both renderings, without separate stems."""


def run(seed: int, folder: Path) -> dict[str, float]:
    """The test accuracy in each rendering: with both stems, alone, and through one stem for both."""
    _, together = run_recipe("stems.yaml", seed)
    mixed = [f"train.data.{number}.stem=none" for number in range(2)]
    _, shared = run_recipe("stems.yaml", seed, *mixed, "operations=[{op: reinit, sites: .}]")
    cells = {}
    for rendering in RENDERINGS:
        _, alone = run_recipe("one_stem.yaml", seed, f"train.data.rendering={rendering}")
        cells[f"stems of their own | {rendering}"] = accuracy(together, "logits", rendering)
        cells[f"one stem for both | {rendering}"] = accuracy(shared, "logits", rendering)
        cells[f"alone | {rendering}"] = accuracy(alone)
    return cells


CLAIMS = tuple(
    Claim(
        f"stems of their own − alone, {rendering}",
        lambda c, rendering=rendering: c[f"stems of their own | {rendering}"] - c[f"alone | {rendering}"],
        at_least=0.0,
    )
    for rendering in RENDERINGS
)
