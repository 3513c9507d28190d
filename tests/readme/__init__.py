"""The output of commands that README and the handwritten pages show: print it again, and write or compare it.

A block begins with a comment that holds the command and ends with the end of its code fence::

    <!-- output: surgeon ops freeze -->
    ```text
    …
    ```
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "surgeon/docs").glob("*.md")))
"""README, and the pages of the site that are written by hand."""
BLOCK = re.compile(r"<!-- output: surgeon (?P<arguments>[^\n]+) -->\n```text\n(?P<text>.*?)\n```", re.DOTALL)
COMMAND = "PYTHONPATH=tests python -m readme"


def shown(text: str) -> dict[str, str]:
    """The output that a page shows, by the arguments of its command."""
    return {match["arguments"]: match["text"] for match in BLOCK.finditer(text)}


def printed(arguments: str) -> str:
    """What ``surgeon ARGUMENTS`` prints in the root of the repository, without blanks at the ends of lines."""
    environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    process = subprocess.run(
        [sys.executable, "-m", "surgeon", *arguments.split()],
        cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if process.returncode:
        raise RuntimeError(f"surgeon {arguments} failed:\n{process.stderr}")
    return "\n".join(line.rstrip() for line in process.stdout.strip("\n").splitlines())


def regenerated(text: str) -> str:
    """The text of a page with every block as its command prints it now."""

    def block(match: re.Match[str]) -> str:
        arguments = match["arguments"]
        return f"<!-- output: surgeon {arguments} -->\n```text\n{printed(arguments)}\n```"

    return BLOCK.sub(block, text)
