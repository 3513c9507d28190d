"""Several tasks on one trunk where half of all labels are missing."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from methods.claims import Cells, Claim
from methods.recipe_runs import accuracy, run_recipe

TITLE = "Multi-task learning with half of all labels missing"
RECIPES = ("multitask.yaml",)
ORDER = 40
TASKS = {
    "digit": "{classes: 10}",
    "parity": "{classes: [even, odd]}",
    **dict.fromkeys(("loop", "prime", "large"), "{kind: multilabel, classes: 1}"),
}
NOTE = """The tasks: which digit, whether it is odd, and three yes/no questions (does it have a closed loop, is it
prime, is it 5 or more). Each answer to a training sample is missing with probability one half. The control, a network
for each task, gets the same answers to its question. Complete rows are the one in 32 samples that have all five
answers."""


def run(seed: int, folder: Path) -> dict[str, float]:
    """The test accuracy of every task: together, by itself, and on complete rows alone."""
    _, together = run_recipe("multitask.yaml", seed)
    _, complete = run_recipe("multitask.yaml", seed, "train.data.rows=complete")
    cells = {}
    for task, head in TASKS.items():
        single_task = f"operations.1.tasks={{{task}: {head}}}"
        _, alone = run_recipe("multitask.yaml", seed, single_task, f"train.data.questions=[{task}]")
        cells[f"all tasks on one trunk | {task}"] = accuracy(together, task)
        cells[f"a network for each | {task}"] = accuracy(alone, task)
        cells[f"one trunk, complete rows only | {task}"] = accuracy(complete, task)
    return cells


def over_tasks(cells: Cells, row: str) -> float:
    """The mean over the tasks."""
    return mean(cells[f"{row} | {task}"] for task in TASKS)


CLAIMS = (
    Claim(
        "all tasks on one trunk − a network for each, mean over tasks",
        lambda c: over_tasks(c, "all tasks on one trunk") - over_tasks(c, "a network for each"),
        at_least=-0.5,
    ),
    Claim(
        "all tasks on one trunk − complete rows only, mean over tasks",
        lambda c: over_tasks(c, "all tasks on one trunk") - over_tasks(c, "one trunk, complete rows only"),
        at_least=3.0,
    ),
)
