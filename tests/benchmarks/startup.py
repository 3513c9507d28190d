"""What ``surgeon`` takes to print words, against what Typer takes: whole processes, interleaved.

    python tests/benchmarks/startup.py

The least that a command of Typer takes is more than importing it: to parse an argument or option it imports pydantic
and builds validators (``typer/_coercion.py``, Typer 0.29).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rounds import Contender, python, run_rounds, table

SURGEON = Path(sys.executable).with_name("surgeon")
GROUND = "`import typer, rich`"
ONE_OPTION = "import typer\ndef main(name: str = ''):\n    print(name)\ntyper.run(main)"
COMMANDS = ("--help", "apply --help", "plugins", "ops", "ops freeze", "schema")


def main() -> None:
    """Run the rounds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="write the table there too")
    options = parser.parse_args()
    contenders = [
        Contender(GROUND, python("import typer, rich")),
        Contender("a Typer command with one option", python(ONE_OPTION)),
        Contender("`import pydantic.main`", python("import pydantic.main")),
        *(Contender(f"surgeon {words}", [str(SURGEON), *words.split()]) for words in COMMANDS),
    ]
    run_rounds(contenders, options.rounds, cold=False, tell=lambda line: None)
    text = table(contenders, GROUND)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
