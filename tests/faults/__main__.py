"""Attack surgeon: kill it, fill the disk, hand it hostile files; see ``README.md`` beside this file.

PYTHONPATH=tests python -m faults --full            # everything
PYTHONPATH=tests python -m faults kills --full      # one part
PYTHONPATH=tests python -m faults                   # a few cases of each, as in the tests
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from faults.forked import warm
from faults.tally import Tally

PARTS = {
    "kills": "faults.kills",
    "training": "faults.training_kills",
    "places": "faults.places",
    "names": "faults.names",
    "pickles": "faults.hostile_pickles",
    "bombs": "faults.bombs",
    "poisoned": "faults.poisoned",
    "structure": "faults.structure_fuzz",
}


def main() -> int:
    """Run parts, print how their cases ended, and return 1 where there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all of them if left out")
    parser.add_argument("--full", action="store_true", help="all cases")
    parser.add_argument("--share", type=float, default=0.0, help="this share of all cases, such as 0.1")
    options = parser.parse_args()
    warm()
    failed = False
    for name in options.part or PARTS:
        tally, started = Tally(1.0 if options.full else options.share), time.monotonic()
        import_module(PARTS[name]).run(tally)
        total, seconds = sum(tally.outcomes.values()), time.monotonic() - started
        print(f"{name}: {total} cases, {len(tally.faults)} faults, {seconds:.0f} s")
        for outcome, count in tally.outcomes.most_common():
            print(f"    {count:5} {outcome}")
        sys.stdout.flush()
        failed = failed or bool(tally.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
