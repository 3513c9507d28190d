"""Run the methods of transfer learning over seeds, and write what came of it to recipes/RESULTS.md.

What the results file holds already is not run again, unless its recipes have changed since.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import methods
from methods import results as store
from methods.results import Result
from methods.table import render, section

FIRST = 100
"""The first of the seeds that are reported; settings are chosen on 0 to 9."""
RECIPES = Path(__file__).parents[3] / "recipes"
RESULTS = Path(__file__).parent / "results.jsonl"


def main() -> int:
    """Parse the command line, run and write."""
    parser = argparse.ArgumentParser(prog="python -m methods", description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="all by default")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=FIRST, help="the first; 0 to try settings: shown, not written")
    parser.add_argument("--results", type=Path, default=RESULTS, help="what is done; it is added to")
    parser.add_argument("--table", type=Path, default=RECIPES / "RESULTS.md", help="where the table goes")
    parser.add_argument("--only-table", action="store_true", help="write the table of what is done")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    modules = method_modules()
    if unknown := sorted(set(given.methods) - set(modules)):
        parser.error(f"no such method: {', '.join(unknown)}; there are {', '.join(modules)}")
    seeds = range(given.first, given.first + given.seeds)
    if not given.only_table:
        measure({name: modules[name] for name in given.methods or modules}, seeds, given.results)
    results = {name: (module, measured(name, module, given.results, given.first)) for name, module in modules.items()}
    if given.first != FIRST:
        for name, (module, seeds) in results.items():
            if seeds and name in (given.methods or modules):
                print("\n".join(section(name, module, seeds)))
        return 0
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "scikit-learn"))
    command = "PYTHONPATH=tests/benchmarks python -m methods"
    given.table.write_text(render(results, command, versions), encoding="utf-8")
    for module, seeds in results.values():
        if seeds and hasattr(module, "pictures"):
            for name, text in module.pictures([seeds[seed].numbers for seed in sorted(seeds)]).items():
                (given.table.parent / name).write_text(text, encoding="utf-8")
    print(f"{given.table} written")
    return 0


def method_modules() -> dict[str, ModuleType]:
    """The modules that are methods, by name, in the order of their ORDER and then their names."""
    results = {}
    for entry in iter_modules(methods.__path__):
        if entry.name != "__main__":
            module = import_module(f"methods.{entry.name}")
            if hasattr(module, "CLAIMS"):
                results[entry.name] = module
    return dict(sorted(results.items(), key=lambda item: (getattr(item[1], "ORDER", 50), item[0])))


def measure(modules: Mapping[str, ModuleType], seeds: range, path: Path) -> None:
    """Run what the results file lacks, seed by seed, so that an interrupted sweep is even."""
    from methods.recipe_runs import begin

    begin()
    code = store.commit()
    done = {(r.method, r.seed, r.settings) for r in store.read(path)}
    for number in seeds:
        with tempfile.TemporaryDirectory(prefix="methods-") as scratch:  # sources are shared among the methods
            for name, module in modules.items():
                settings = settings_of(module)
                seed = seed_of(module, number)
                if (name, seed, settings) in done:
                    continue
                started = time.perf_counter()
                cells = module.run(seed, Path(scratch))
                seconds = time.perf_counter() - started
                rounded = {key: round(value, 4) for key, value in cells.items()}
                store.add(path, Result(name, seed, settings, rounded, round(seconds, 1), code))
                print(f"{name} {seed}: {seconds:.0f} s", flush=True)


def seed_of(module: ModuleType, number: int) -> int:
    """The seed that a method runs as ``number``: where it is reported, counted from the module's own first."""
    return number + getattr(module, "FIRST", FIRST) - FIRST if number >= FIRST else number


def settings_of(module: ModuleType) -> str:
    """The fingerprint of the recipes that a method runs."""
    return store.fingerprint([RECIPES / name for name in module.RECIPES])


def measured(method: str, module: ModuleType, path: Path, first: int) -> dict[int, Result]:
    """The results of a method under its present settings, by seed; those on either side of FIRST stay apart."""
    settings = settings_of(module)
    results = {r.seed: r for r in store.read(path) if r.method == method and r.settings == settings}
    if first < FIRST:
        return {seed: result for seed, result in results.items() if seed < FIRST}
    return {seed: result for seed, result in results.items() if seed >= getattr(module, "FIRST", FIRST)}


if __name__ == "__main__":
    sys.exit(main())
