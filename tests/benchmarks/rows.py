"""Times of a large table: until the first step of training, and batches a second against plain ``datasets``.

    python tests/benchmarks/rows.py                # 10^6 rows of ten numbers, in a Parquet file: about a minute

Both loaders read shuffled batches in turn, ``--rounds`` times; the table holds medians. The clock is this process's
processor time. Before the first step the network is measured on all test samples, which is shown apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.load_splits import load_splits
from surgeon.training.session import train
from surgeon.training.trainer import ObjectiveTrainer

COLUMNS = [f"c{number}" for number in range(10)]


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        random = np.random.default_rng(0)
        columns: dict[str, Any] = {name: random.normal(size=options.rows).astype("float32") for name in COLUMNS}
        datasets.Dataset.from_dict(columns | {"y": random.integers(0, 2, options.rows)}).to_parquet(path)
        source = {"source": "table", "path": str(path), "numbers": {"x": COLUMNS}, "targets": {"labels": "y"}}
        settings = TrainSettings(data=source, batch_size=options.batch, arguments={"max_steps": 1})
        print("until the first step: {:.2f} s, of which measuring {:.2f} s".format(*first_step(settings)))
        splits = load_splits(settings)
        plain = datasets.load_dataset("parquet", data_files=str(path), split="train").with_format("torch")
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(
                speed(DataLoader(splits.train, options.batch, shuffle=True, collate_fn=splits.collate), options)
            )
            theirs.append(speed(DataLoader(plain, options.batch, shuffle=True), options))
        print(f"batches a second: surgeon {median(ours):.0f}, datasets {median(theirs):.0f}")


def first_step(settings: TrainSettings) -> tuple[float, float]:
    """Return the processor time until the first step, and what of it went into measuring."""
    measured: list[float] = []
    measure = ObjectiveTrainer.measure

    def timed(self: ObjectiveTrainer) -> Any:
        begun = time.process_time()
        result = measure(self)
        measured.append(time.process_time() - begun)
        return result

    step = ObjectiveTrainer.training_step
    reached: list[float] = []

    def noted(self: ObjectiveTrainer, *args: Any, **kwargs: Any) -> Any:
        reached.append(time.process_time())
        return step(self, *args, **kwargs)

    ObjectiveTrainer.measure, ObjectiveTrainer.training_step = timed, noted  # type: ignore[method-assign]
    begun = time.process_time()
    train(nn.Sequential(nn.Linear(len(COLUMNS), 16), nn.ReLU(), nn.Linear(16, 2)), settings, quiet=True)
    return reached[0] - begun, measured[0]


def speed(loader: DataLoader[Any], options: argparse.Namespace) -> float:
    """Return the batches a second of a loader."""
    batches = iter(loader)
    next(batches)
    begun = time.process_time()
    for _ in range(options.batches):
        next(batches)
    return options.batches / (time.process_time() - begun)


if __name__ == "__main__":
    main()
