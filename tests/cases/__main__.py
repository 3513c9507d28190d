"""``PYTHONPATH=tests python -m cases [PART OF A NAME, OR KIND] …``."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

from cases.harness import run_case, table
from cases.material import Material
from cases.registry import all_cases


def main(wanted: list[str]) -> int:
    """Run the cases that are wanted, or all; 1 if anything is wrong."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")
    results = []
    with tempfile.TemporaryDirectory(prefix="cases-") as folder:
        material = Material(Path(folder))
        for chosen in all_cases():
            if not wanted or any(chosen.kind.startswith(part) or part in chosen.name for part in wanted):
                results.append(run_case(chosen, material))
                print(table(results[-1:]).splitlines()[0], flush=True)
    print(table(results).splitlines()[-1])
    return int(any(result.outcome.word == "wrong" for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
