"""Progressive networks: a second column beside one that stays as it is, after a related and an unrelated first task."""

from __future__ import annotations

from pathlib import Path

import torch

import surgeon
from methods.claims import Claim
from methods.recipe_runs import accuracy, made_by, run_recipe

ORDER = 40
TITLE = "Progressive networks"
RECIPES = ("source.yaml", "texture_source.yaml", "progressive.yaml", "fine_tuning.yaml")
NOTE = """The second column learns 5 to 9 from n labelled samples of each. It reads a first column that was trained on
0 to 4 (related), or on random labels of photo textures (unrelated). Scratch is one column alone; fine-tuning
continues to train the first network. Column 1 unchanged: the percentage of its tensors that are byte-identical after
training. Alpha, the initial scale of the laterals, was chosen from 1, 0.5, 0.3 and 0.1 on the seeds 0 to 4. Earlier
reports used 1 on the seeds 100 to 109, which next to the unrelated task costs 3.2 ± 5.5 points at n = 20, and 0.3 on
110 to 114, which next to the related one gains 8.5 ± 3.8 at n = 10. The seeds here are others, and twice as many
(--seeds 10)."""
FIRST = 115
FIRST_TASKS = {
    "related": ("source.yaml",),
    "unrelated": ("texture_source.yaml", "train.data.task=random", "train.epochs=60"),
}
SAMPLES = (10, 20)


def run(seed: int, folder: Path) -> dict[str, float]:
    """Accuracies on 5 to 9 by way, first task and number of samples."""
    cells: dict[str, float] = {}
    scratch: dict[int, float] = {}
    same = []
    for first, (recipe, *overrides) in FIRST_TASKS.items():
        source = made_by(recipe, seed, folder, *overrides)
        before = surgeon.load(source, trust_code="networks").state_dict()
        for count in SAMPLES:
            few = f"train.data.per_class={count}"
            network, report = run_recipe("progressive.yaml", seed, few, model=source)
            after = network.state_dict()
            same += [torch.equal(after[f"columns.0.{name}"], value) for name, value in before.items()]
            cells[f"{first}: second column | n = {count}"] = accuracy(report, "new")
            base = "none" if count in scratch else "scratch"
            _, report = run_recipe("fine_tuning.yaml", seed, few, f"train.baseline={base}", model=source)
            cells[f"{first}: fine-tuning | n = {count}"] = accuracy(report)
            if report.accuracy_baseline is not None:
                scratch[count] = 100 * report.accuracy_baseline
    cells |= {f"scratch | n = {count}": value for count, value in scratch.items()}
    return {**cells, "column 1 unchanged": 100 * sum(same) / len(same)}


def _ahead(first: str, way: str, count: int, at_least: float | None = None) -> Claim:
    return Claim(
        f"{first} first task: {way} − scratch, n = {count}",
        lambda cells: cells[f"{first}: {way} | n = {count}"] - cells[f"scratch | n = {count}"],
        at_least,
    )


CLAIMS = (
    Claim("column 1 unchanged, % of tensors", lambda cells: cells["column 1 unchanged"], 100),
    _ahead("related", "second column", 10, at_least=10),
    _ahead("related", "second column", 20),
    _ahead("unrelated", "second column", 10, at_least=-2),
    _ahead("unrelated", "second column", 20, at_least=-2),
    _ahead("unrelated", "fine-tuning", 10),
    _ahead("unrelated", "fine-tuning", 20),
)
