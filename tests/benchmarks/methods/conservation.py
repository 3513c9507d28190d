"""Conservation training: what is kept of the source task while a new one is learnt beside it."""

from __future__ import annotations

from pathlib import Path

from methods.claims import Claim
from methods.recipe_runs import accuracy, made_by, run_recipe

ORDER = 30
TITLE = "Conservation training"
RECIPES = ("source.yaml", "conservation.yaml")
NOTE = """A network trained on 0 to 4 learns 5 to 9, with all of their labels, by a second head. "Kept" is the
accuracy of the old head on 0 to 4. "Plain" is the same recipe without its conserve. The requirement is that one of
the three methods reaches both bounds. The weights were chosen on the seeds 0 to 4, from LwF 0.01, 0.03, 0.1, 0.2, 0.4
and 1, EWC 0.5, 1, 2 and 5, L2-SP 0.01, 0.02 and 0.04; the number of epochs on the seeds 0 to 2. They were chosen a
second time after the seeds 100 to 104 had been seen, on which LwF at 1 cost 2.4 points of the target, so this table
reports other seeds."""
FIRST = 105
OLD = "{source: digits, classes: [0, 1, 2, 3, 4], size: 16, channels: 1}"
HEADS = "{op: multitask, original: keep, tasks: {new: {classes: ['5', '6', '7', '8', '9'], label: labels}}}"
WAYS = {
    "plain": f"operations=[{HEADS}]",
    "L2-SP": "operations.1={op: conserve, method: l2_sp, weight: 0.02}",
    "EWC": f"operations.1={{op: conserve, method: ewc, weight: 1, data: {OLD}}}",
    "LwF": "operations.1={op: conserve, method: lwf, weight: 0.03}",
}


def run(seed: int, folder: Path) -> dict[str, float]:
    """Accuracies on 5 to 9 by the new head and on 0 to 4 by the old one, by method."""
    source = made_by("source.yaml", seed, folder)
    cells = {}
    for way, override in WAYS.items():
        _, report = run_recipe("conservation.yaml", seed, override, model=source)
        cells[f"{way} | target (5 to 9)"] = accuracy(report, "new")
        cells[f"{way} | kept (0 to 4)"] = accuracy(report, "logits")
    return cells


def _against_plain(way: str, what: str, at_least: float | None = None) -> Claim:
    return Claim(f"{way} − plain: {what}", lambda cells: cells[f"{way} | {what}"] - cells[f"plain | {what}"], at_least)


CLAIMS = tuple(
    _against_plain(way, what, at_least)
    for way in ("LwF", "L2-SP", "EWC")
    for what, at_least in (("target (5 to 9)", -2.0), ("kept (0 to 4)", 10.0))
)
