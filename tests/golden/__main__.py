"""``python -m golden [CASE ...]``: record the results of this code."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from golden.cases import CASES
from golden.records import make_record, path_of, write_record


def main() -> None:
    """Record the cases that the arguments name, or all."""
    parser = argparse.ArgumentParser(prog="python -m golden", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--folder", type=Path, help="write the records there, and leave those of the tests")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            record = make_record(CASES[name], Path(folder))
        path = options.folder / f"{name}.json" if options.folder else path_of(name)
        write_record(record, path)
        print(path)


if __name__ == "__main__":
    main()
