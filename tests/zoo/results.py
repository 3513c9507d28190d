"""What the sweep found out, one line of JSON for each network and operation; gzip keeps it small where it is kept."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, cast

OPERATIONS = (
    "build", "inspect", "identify", "truncate 25 %", "truncate 50 %", "truncate 75 %", "keep half of the blocks",
    "replace head", "freeze half", "reversal", "multitask", "progressive", "recipe",
)  # fmt: skip
STAGES = ("plan", "apply", "save", "load", "step")
Outcome = Literal["ok", "refused", "failed", "no meaning"]


@dataclass(frozen=True)
class Result:
    """How one operation went on one network.

    Attributes:
        model: ``torchvision/NAME`` or ``transformers/TYPE/CLASS``.
        operation: One of :data:`OPERATIONS`.
        outcome: ``refused`` where an error says before surgery why it cannot be; ``no meaning`` only where the
            operation has none for such a network.
        stage: The stage that failed; empty where all went well.
        reason: What went wrong, in one line.
        seconds: How long it took.
        note: What a reader of the results may want to know.
        code: The commit that was swept.
    """

    model: str
    operation: str
    outcome: Outcome
    stage: str = ""
    reason: str = ""
    seconds: float = 0.0
    note: str = ""
    code: str = ""


def read(path: Path) -> list[Result]:
    """The results in a file, the later of two for the same network and operation counting."""
    if not path.exists():
        return []
    with _open(path, "rt") as file:
        results = [Result(**json.loads(line)) for line in file.read().splitlines() if line]
    return list({(r.model, r.operation): r for r in results}.values())


def commit() -> str:
    """The commit that is checked out here, marked where files of it have been changed; empty outside of a clone."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    process = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return process.stdout.strip()


def add(path: Path, results: Iterable[Result]) -> None:
    """Append results to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path, "at") as file:
        for result in results:
            file.write(json.dumps(asdict(result)) + "\n")


def _open(path: Path, mode: str) -> IO[str]:
    return cast("IO[str]", gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode.removesuffix("t")))


def rewrite(path: Path, results: Iterable[Result]) -> None:
    """Replace a file's results."""
    path.unlink(missing_ok=True)
    add(path, results)
