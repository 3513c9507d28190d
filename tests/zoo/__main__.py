"""``python -m zoo``: run what the results file lacks, and write the table."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from zoo import results as store
from zoo.results import Result

HERE = Path(__file__).parent


def main() -> int:
    """Parse the command line and sweep."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description=__doc__)
    parser.add_argument("models", nargs="*", help="patterns: torchvision/*, transformers/bert/*; all by default")
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl.gz", help="what is done; it is added to")
    parser.add_argument("--table", type=Path, default=HERE / "RESULTS.md", help="where the table goes")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--seconds", type=float, default=90, help="the time limit of a network")
    parser.add_argument("--gigabytes", type=float, default=10, help="the memory limit of a network")
    parser.add_argument("--scratch", type=Path, help="where artifacts are written meanwhile")
    parser.add_argument(
        "--until", choices=("inspect", *store.STAGES), default="step", help="the last stage to go through"
    )
    parser.add_argument(
        "--bases", action="store_true", help="of transformers the base class of each model type, none with a head"
    )
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=store.OPERATIONS[2:],
        default=store.OPERATIONS[2:],
        help="run these on the chosen networks, whatever is done; all on those that are not, if left out",
    )
    parser.add_argument(
        "--tasks", action="store_true", help="the classes for tasks: become/TYPE/TASK/CLASS and count/TYPE/TASK/CLASS"
    )
    parser.add_argument("--again", action="store_true", help="run the chosen networks again if one of theirs failed")
    parser.add_argument("--only-table", action="store_true", help="write the table of what is done")
    given = parser.parse_args()
    if not given.only_table:
        sweep(given)
    write_table(given)
    return 0


def sweep(given: argparse.Namespace) -> None:
    """Run the chosen networks that are not done."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    import torchvision  # noqa: F401
    import transformers
    import transformers.modeling_utils

    for package in (import_module("surgeon"), import_module("zoo")):  # a child finds the code as it was at the start
        for module_info in walk_packages(package.__path__, f"{package.__name__}."):
            if not module_info.name.endswith(("__main__", "test_zoo_sample")):
                import_module(module_info.name)
    from zoo import task_classes
    from zoo.catalog import torchvision_names, transformers_names
    from zoo.checks import examine
    from zoo.pool import run

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = task_classes.names() if given.tasks else [*torchvision_names(), *transformers_names(heads=not given.bases)]
    chosen = list(dict.fromkeys(n for pattern in given.models or ["*"] for n in names if fnmatchcase(n, pattern)))
    done = store.read(given.results)
    if given.again:
        again = {r.model for r in done if r.outcome == "failed" and r.model in chosen}
        done = [r for r in done if r.model not in again]
        store.rewrite(given.results, done)
    finished = {r.model for r in done}
    some = tuple(given.operations)
    repeats = some != store.OPERATIONS[2:] and not given.tasks
    waiting = [n for n in chosen if n not in finished or repeats]
    started, code = time.monotonic(), store.commit()
    jobs = run(
        task_classes.examine if given.tasks else partial(examine, until=given.until, operations=some),
        waiting,
        jobs=given.jobs,
        seconds=given.seconds,
        gigabytes=given.gigabytes,
        scratch=given.scratch,
    )
    for number, ended in enumerate(jobs, 1):
        results = list(ended.reports)
        if ended.trouble and given.tasks:
            results = [Result(ended.name, ended.name.partition("/")[0], "failed", reason=ended.trouble)]
        elif ended.trouble:
            over = {r.operation for r in results}
            left = [
                o
                for o in (*store.OPERATIONS[:2], *some)
                if o not in over and not (o == "identify" and "transformers" in ended.name)
            ]
            results += [Result(ended.name, o, "failed", reason=ended.trouble) for o in left[:1]]
            results += [Result(ended.name, o, "failed", reason=f"not reached: {ended.trouble}") for o in left[1:]]
        results = [replace(result, code=code) for result in results]
        store.add(given.results, results)
        bad = [
            f"{r.operation}{f' ({r.stage})' if r.stage else ''}: {r.reason}"
            for r in results
            if r.outcome in ("refused", "failed")
        ]
        elapsed = time.monotonic() - started
        print(
            f"[{number}/{len(waiting)} {elapsed:.0f}s] {ended.name} {ended.seconds:.1f}s {len(results) - len(bad)} ok",
            flush=True,
        )
        for line in bad:
            print(f"    {line}", flush=True)


def write_table(given: argparse.Namespace) -> None:
    """Write the table of all results; of task classes, the section of the page that is about them."""
    from importlib.metadata import version

    from zoo import task_classes
    from zoo.catalog import torchvision_names, transformers_names
    from zoo.table import render

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "transformers"))
    old = given.table.read_text() if given.table.exists() else ""
    if given.tasks:
        section = task_classes.render(store.read(given.results), versions)
        given.table.write_text(task_classes.put_section(old, section))
        return
    command = "PYTHONPATH=tests python -m zoo --bases --jobs 2 --seconds 900 --gigabytes 16"
    names = [*torchvision_names(), *transformers_names()]
    page = render(store.read(given.results), command, versions, names) + "\n"
    given.table.write_text(task_classes.with_section_of(page, old))


if __name__ == "__main__":
    sys.exit(main())
