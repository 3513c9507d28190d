"""How much faster ``features: cache`` trains the head of a frozen network, and how far the results lie apart.

    OMP_NUM_THREADS=1 python tests/benchmarks/feature_cache.py [--epochs 10] [--size 64]

Prints JSON: seconds of training without the cache, with an empty one (the trunk runs once) and with a full one, the
sum of the two parts of the wall clock (making the features is outside of what the report calls training), and the
greatest difference between the weights that the runs end with.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import torch
import torchvision

import surgeon
from surgeon.recipe.train_settings import Digits, TrainSettings


def measure(features: str, epochs: int, size: int) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Seconds of the wall clock in all and of training alone, and the weights at the end."""
    torch.manual_seed(0)
    model = surgeon.apply(torchvision.models.resnet18(num_classes=10), [surgeon.Freeze(all_but="head")])
    settings = TrainSettings(
        data=Digits(per_class=40, size=size), epochs=epochs, batch_size=32, features=features, learning_rate=1e-2
    )
    started = time.perf_counter()
    report = surgeon.train(model, settings, quiet=True)
    return time.perf_counter() - started, report.seconds, model.state_dict()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SURGEON_CACHE"] = folder
        runs = {
            name: measure(features, given.epochs, given.size)
            for name, features in (("without", "none"), ("empty cache", "cache"), ("full cache", "cache"))
        }
    plain = runs["without"][2]
    measured = {
        name: {
            "seconds": round(wall, 2),
            "of them training": round(training, 2),
            "training is faster by": round(runs["without"][1] / training, 1),
            "greatest difference of a weight": max((weights[n] - plain[n]).abs().max().item() for n in plain),
        }
        for name, (wall, training, weights) in runs.items()
    }
    print(
        json.dumps(
            {"network": "resnet18, all but the head frozen", "samples": 400, **vars(given), **measured}, indent=2
        )
    )


if __name__ == "__main__":
    main()
