"""Fine-tuning, feature extraction and training from scratch on few samples of new classes."""

from __future__ import annotations

from pathlib import Path

from methods.claims import Claim
from methods.recipe_runs import accuracy, made_by, run_recipe

ORDER = 10
TITLE = "Fine-tuning, feature extraction, from scratch"
RECIPES = ("source.yaml", "fine_tuning.yaml", "feature_extraction.yaml")
NOTE = """A network trained on the digits 0 to 4 learns 5 to 9 from n labelled samples of each: as a whole
(fine-tuning), or only a new head (feature extraction). The control (scratch) is the same network with initial
weights, trained on the same samples for as many steps."""
SAMPLES = (5, 10, 20, 50)


def run(seed: int, folder: Path) -> dict[str, float]:
    """Accuracies on 5 to 9, by way and number of samples."""
    source = made_by("source.yaml", seed, folder)
    cells: dict[str, dict[int, float]] = {"fine-tuning": {}, "feature extraction": {}, "scratch": {}}
    for count in SAMPLES:
        few = f"train.data.per_class={count}"
        _, report = run_recipe("fine_tuning.yaml", seed, few, model=source)
        assert report.accuracy_baseline is not None
        cells["fine-tuning"][count] = accuracy(report)
        cells["scratch"][count] = 100 * report.accuracy_baseline
        _, report = run_recipe("feature_extraction.yaml", seed, few, model=source)
        cells["feature extraction"][count] = accuracy(report)
    return {f"{way} | n = {count}": value for way, values in cells.items() for count, value in values.items()}


def _ahead(count: int, way: str = "fine-tuning", at_least: float | None = None) -> Claim:
    return Claim(
        f"{way} − scratch, n = {count}",
        lambda cells: cells[f"{way} | n = {count}"] - cells[f"scratch | n = {count}"],
        at_least,
    )


CLAIMS = (
    _ahead(5),
    _ahead(10, at_least=15),
    _ahead(20),
    _ahead(50),
    _ahead(5, "feature extraction"),
    _ahead(10, "feature extraction"),
    _ahead(50, "feature extraction"),
)
