"""Layer transfer: the first k of four blocks copied, frozen or fine-tuned, from a related and an unrelated network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from methods.claims import Cells, Claim, spread
from methods.recipe_runs import accuracy, made_by, run_recipe
from surgeon.training.curve import chart

ORDER = 20
TITLE = "Layer transfer"
RECIPES = ("source.yaml", "texture_source.yaml", "layer_transfer.yaml")
NOTE = """The first k of four blocks are copied from a network trained on 0 to 4 (related) or on parts of photographs
(unrelated), and stay frozen or are fine-tuned; the other blocks are reinitialised. k = 0 is training from scratch.
The network, convnet, has batch norms and averages over positions. It was chosen on the seeds 0 to 2: digitnet of the
other tables, whose head reads where something is, gained hardly anything from frozen blocks on those seeds."""
NETWORK = "model=python:networks:convnet"
PICTURES = ("layer_transfer_few.svg", "layer_transfer_all.svg")
AMOUNTS = {
    "n = 20": (),
    "all labels": ("train.data.per_class=null", "train.epochs=10"),
}
DONORS = {"related": "source.yaml", "unrelated": "texture_source.yaml"}
WAYS = {"frozen": "true", "fine-tuned": "false"}


def run(seed: int, folder: Path) -> dict[str, float]:
    """Accuracies on 5 to 9, by donor, way, amount of labels and k."""
    cells = {}
    for amount, overrides in AMOUNTS.items():
        scratch = None
        for kind, recipe in DONORS.items():
            donor = made_by(recipe, seed, folder, NETWORK)
            for way, frozen in WAYS.items():
                for k in range(1, 5):
                    chosen = [
                        f"operations.0.donor={donor}",
                        f"operations.0.up_to=blocks.{k - 1}",
                        f"operations.0.frozen={frozen}",
                    ]
                    if scratch is None:
                        chosen.append("train.baseline=scratch")
                    _, report = run_recipe("layer_transfer.yaml", seed, *overrides, *chosen)
                    if report.accuracy_baseline is not None:
                        scratch = 100 * report.accuracy_baseline
                    cells[_name(kind, way, amount, k)] = accuracy(report)
                assert scratch is not None
                cells[_name(kind, way, amount, 0)] = scratch
    order = [_name(kind, w, amount, k) for amount in AMOUNTS for kind in DONORS for w in WAYS for k in range(5)]
    return {name: cells[name] for name in order}


def _name(kind: str, way: str, amount: str, k: int) -> str:
    return f"{amount}, {kind}, {way} | k = {k}"


def _gain(kind: str, way: str, amount: str, k: int, over: int, at_least: float | None = None) -> Claim:
    def value(cells: Cells) -> float:
        return cells[_name(kind, way, amount, k)] - cells[_name(kind, way, amount, over)]

    return Claim(f"{amount}, {kind}, {way}: k = {k} − k = {over}", value, at_least)


# frozen rises to a middle k and falls after it, the more so the more labels; fine-tuned does not fall
CLAIMS = (
    _gain("related", "frozen", "n = 20", 2, over=0, at_least=2),
    _gain("related", "frozen", "n = 20", 2, over=4, at_least=5),
    _gain("related", "frozen", "all labels", 1, over=0),
    _gain("related", "frozen", "all labels", 0, over=4, at_least=10),
    _gain("related", "fine-tuned", "n = 20", 4, over=2, at_least=-2),
    _gain("related", "fine-tuned", "all labels", 4, over=0, at_least=-2),
    _gain("related", "fine-tuned", "n = 20", 4, over=0),
    _gain("unrelated", "frozen", "n = 20", 2, over=0),
    _gain("unrelated", "fine-tuned", "n = 20", 4, over=0),
)


def pictures(seeds: Sequence[Cells]) -> dict[str, str]:
    """Accuracy over k, one picture for each amount of labels."""
    drawn = {}
    for name, amount in zip(PICTURES, AMOUNTS, strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        errors: Mapping[str, list[float]] = {}
        for kind in DONORS:
            for way in WAYS:
                values = [[cells[_name(kind, way, amount, k)] for cells in seeds] for k in range(5)]
                lines[f"{way}, {kind}"] = [(float(k), mean(accuracies)) for k, accuracies in enumerate(values)]
                errors = {**errors, f"{way}, {kind}": [spread(accuracies) for accuracies in values]}
        drawn[name] = chart(
            lines,
            f"accuracy on 5 to 9 (%), {amount}",
            ticks={float(k): str(k) for k in range(5)},
            across="blocks copied",
            dashed=[line for line in lines if line.endswith(" unrelated")],
            errors=errors,
        )
    return drawn
