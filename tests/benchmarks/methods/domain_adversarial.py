"""Labelled digits in white on black, unlabelled ones over photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from methods.claims import Cells, Claim
from methods.measurement import accuracy_on, with_statistics_of
from methods.recipe_runs import accuracy, plugins, run_recipe

TITLE = "Domain-adversarial training"
RECIPES = ("domain_adversarial.yaml", "source_only.yaml")
ORDER = 60
FIRST = 105
"""An earlier version was reported on the seeds 100 to 104."""
PLAIN = "model=python:networks:poolnet_without_norms"
TARGETS: Mapping[str, Mapping[str, Any]] = {
    "g = 0.5": {"gain": 0.5},
    "g = 1": {"gain": 1.0},
    "abs(patch − digit)": {"rule": "difference", "gain": 1.0},
}
"""The main case, a harder one, and the rule of MNIST-M."""
NOTE = """A target picture is x = d + (1 − d) · g · patch, or MNIST-M's |patch − d|, of a digit d and a patch of a
photograph; patches of test pictures come from the other halves of the photographs. Training pictures of both domains
show the same scans, as those of MNIST and MNIST-M do. The network is Ganin & Lempitsky's for MNIST at half width,
with batch norms. g = 0.5 was chosen so that a network trained on the source alone reaches about 76 % on the seeds 0
to 7. Every network is trained for as many steps as the domain-adversarial one. The site of the domain classifier and
the strength of the reversal are those under which networks of the seeds 0, 1 and 2 agree most often on unlabelled
pictures of the first target. At the last hidden layer, strengths 0.1, 0.3 and 1 gave 99.6, 99.5 and 98.1 %; at the
flattened maps, where the paper's classifier reads, 95.3, 96.1 and 94.7 %, the last of these measured after the
choice. All three targets use the same choice. Target labels of the seeds 0 and 1 had been looked at before, to find
the error in an earlier version. That version was reported on the seeds 100 to 104 and closed 50.0 ± 9.6 % of the gap,
so this table reports other seeds; it was trained for fewer steps, and its batch norms were tested with statistics of
both domains. The share is that of the gap between source only (the better of with and without batch norms) and
trained on the target's labels."""


def run(seed: int, folder: Path) -> dict[str, float]:
    """Test accuracies on the target of every method, for each kind of target."""
    blind = {"source only": (), "source only, without batch norms": (PLAIN,)}
    networks = {row: run_recipe("source_only.yaml", seed, *how)[0] for row, how in blind.items()}
    kind = plugins().sources()["photo_digits"]
    cells = {}
    for target, fields in TARGETS.items():
        splits = kind(source="photo_digits", **fields).load(seed)
        settings = [f"{name}={value}" for name, value in fields.items()]
        for row, network in networks.items():
            cells[f"{row} | {target}"] = accuracy_on(network, splits)
        adapted = with_statistics_of(networks["source only"], splits)
        cells[f"source only, batch norms' statistics of the target | {target}"] = accuracy_on(adapted, splits)
        there = [f"train.{part}.{setting}" for setting in settings for part in ("data", "evaluate")]
        _, report = run_recipe("source_only.yaml", seed, *there)
        shifted = [f"train.data.1.{setting}" for setting in settings]
        _, adversarial = run_recipe("domain_adversarial.yaml", seed, *shifted)
        cells[f"domain-adversarial | {target}"] = accuracy(adversarial, "logits", "photo")
        cells[f"trained on the target's labels | {target}"] = accuracy(report)
    return cells


def share(cells: Cells, target: str) -> float:
    """The share of the gap that domain-adversarial training closes, in percent."""
    blind = max(cells[f"{row} | {target}"] for row in ("source only", "source only, without batch norms"))
    gap = cells[f"trained on the target's labels | {target}"] - blind
    return 100 * (cells[f"domain-adversarial | {target}"] - blind) / gap


CLAIMS = tuple(
    Claim(
        f"share of the gap, {target} (percent)",
        lambda c, target=target: share(c, target),
        at_least=65.0 if target == "g = 0.5" else None,
    )
    for target in TARGETS
)
