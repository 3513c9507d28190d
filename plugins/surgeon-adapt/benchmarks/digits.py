"""Adapt from digits in white on black to digits over photographs, by each method, over seeds.

    PYTHONPATH=tests/benchmarks python plugins/surgeon-adapt/benchmarks/digits.py

The data, the network and the number of steps are those of recipes/domain_adversarial.yaml and recipes/source_only.yaml.
It prints the table of the README. What a file of results holds already is not run again, so that several commands, each
with some of the seeds, can share one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import surgeon_adapt
from methods.measurement import accuracy_on, with_statistics_of
from methods.recipe_runs import RECIPES, accuracy, begin, plugins, run_recipe
from ruamel.yaml import YAML
from torch import nn

import surgeon

FRESH = range(120, 125)
"""Nothing was tried on them before."""
TARGETS = {"g = 0.5": 0.5, "g = 1": 1.0}
RISING = {"schedule": "dann", "strength": 0.1, "hidden": [50]}
BY_DOMAIN = {"op": "domain_batch_norm", "domains": ["plain", "photo"]}
METHODS: dict[str, list[dict[str, Any]]] = {
    "mmd": [{"op": "mmd"}],
    "coral": [{"op": "coral", "weight": 10.0}],
    "cdan": [{"op": "cdan", **RISING}],
    "mdd": [{"op": "mdd", "target": "photo", **RISING}],
    "domain_batch_norm": [BY_DOMAIN],
}
"""The defaults; for coral, the weight with which both losses end about equal, as its authors ask for; for cdan and mdd,
the settings of the built-in method in recipes/domain_adversarial.yaml."""
BUILT_IN = "gradient_reversal (built-in)"
SOURCE = "source only"
ADAPTED = "source only, BatchNorm statistics of the target"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("out/adapt.jsonl"), help="what is done; it is added to")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(FRESH))
    parser.add_argument("--targets", nargs="*", choices=list(TARGETS), default=["g = 0.5"])
    parser.add_argument(
        "--methods", nargs="*", choices=[SOURCE, BUILT_IN, *METHODS], default=[SOURCE, BUILT_IN, *METHODS]
    )
    arguments = parser.parse_args()
    begin()
    if "mmd" not in plugins().operations():
        plugins().register(surgeon_adapt, "adapt")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    for target in arguments.targets:
        for seed in arguments.seeds:
            for method in arguments.methods:
                run(method, seed, target, arguments.results)
    print("\n".join(table(done(arguments.results))))


def done(path: Path) -> list[dict[str, Any]]:
    """Return what a file of results holds, for the present settings."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if row["settings"] == METHODS.get(row["method"])]


def run(method: str, seed: int, target: str, path: Path) -> None:
    """Run a method on a seed and a target, if that is not done, and add the result to the file."""
    if any((row["method"], row["seed"], row["target"]) == (method, seed, target) for row in done(path)):
        return
    started = time.process_time()
    cells = measured(method, seed, TARGETS[target])
    row = {"method": method, "seed": seed, "target": target, "settings": METHODS.get(method), "cells": cells}
    line = json.dumps(row | {"seconds": round(time.process_time() - started, 1)})
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def train(operations: Sequence[Mapping[str, Any]], seed: int, gain: float) -> tuple[nn.Module, float]:
    """Train as domain_adversarial.yaml does, with other operations; return the network and the accuracy on photos."""
    recipe = YAML(typ="safe").load((RECIPES / "domain_adversarial.yaml").read_text(encoding="utf-8"))
    recipe["operations"] = [recipe["operations"][0], *operations]
    recipe["train"]["data"][1]["gain"] = gain
    if any(operation["op"] == BY_DOMAIN["op"] for operation in operations):
        del recipe["train"]["domain_bn"], recipe["train"]["domain_statistics"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        YAML().dump(recipe, path)
        loaded = surgeon.load_recipe(path, plugins=plugins())
    model, report = surgeon.finetune(None, loaded, seed=seed, plugins=plugins(), trust_code="networks", quiet=True)
    return model, accuracy(report, "logits", "photo")


def measured(method: str, seed: int, gain: float) -> dict[str, float]:
    """Return the accuracies on the target's test pictures by row of the table."""
    if method == SOURCE:
        model = run_recipe("source_only.yaml", seed)[0]
        splits = plugins().sources()["photo_digits"](source="photo_digits", gain=gain).load(seed)
        return {SOURCE: accuracy_on(model, splits), ADAPTED: accuracy_on(with_statistics_of(model, splits), splits)}
    if method == BUILT_IN:
        report = run_recipe("domain_adversarial.yaml", seed, f"train.data.1.gain={gain}")[1]
        return {method: accuracy(report, "logits", "photo")}
    return {method: train(METHODS[method], seed, gain)[1]}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table: mean ± standard deviation over seeds, and on how many the built-in is beaten."""
    values: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        for name, value in row["cells"].items():
            values.setdefault(name, {})[row["target"], row["seed"]] = value
    targets = [target for target in TARGETS if any(row["target"] == target for row in rows)]
    heads = [cell for target in targets for cell in (target, "ahead of the built-in")]
    lines = [f"| | {' | '.join(heads)} |", f"| --- {'| --- ' * len(heads)}|"]
    for name in [name for name in (SOURCE, ADAPTED, BUILT_IN, *METHODS) if name in values]:
        cells = [cell for target in targets for cell in _cells(name, target, values)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    minutes = sum(row["seconds"] for row in rows) / 60
    return [*lines, "", f"{len(rows)} trainings, {minutes:.0f} minutes of processor time"]


def _cells(name: str, target: str, values: Mapping[str, Mapping[tuple[str, int], float]]) -> list[str]:
    by_seed = {seed: value for (where, seed), value in values[name].items() if where == target}
    built_in = {seed: value for (where, seed), value in values.get(BUILT_IN, {}).items() if where == target}
    spread = statistics.stdev(by_seed.values()) if len(by_seed) > 1 else 0.0
    ahead = sum(value > built_in[seed] for seed, value in by_seed.items() if seed in built_in)
    cell = f"{statistics.mean(by_seed.values()):.1f} ± {spread:.1f}" if by_seed else ""
    return [cell, "" if name == BUILT_IN else f"{ahead} of {len(by_seed)}"]


if __name__ == "__main__":
    main()
