"""What has been measured so far, one line of JSON for each method and seed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ruamel.yaml import YAML


@dataclass(frozen=True)
class Result:
    """The numbers of one method and seed.

    Attributes:
        method: The module's name.
        seed: The seed.
        settings: A fingerprint of the recipes that it ran: under others it does not count any more.
        numbers: In percent, by name.
        seconds: How long it took.
        code: The commit that ran, marked where files of it had been changed.
    """

    method: str
    seed: int
    settings: str
    numbers: dict[str, float]
    seconds: float
    code: str = ""


def commit() -> str:
    """Return the commit that is checked out here, marked where files of it have been changed."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def read(path: Path) -> list[Result]:
    """The results in a file, the last for a method, seed and settings counting."""
    if not path.exists():
        return []
    results = [Result(**json.loads(line)) for line in path.read_text().splitlines() if line]
    return list({(r.method, r.seed, r.settings): r for r in results}.values())


def add(path: Path, result: Result) -> None:
    """Append a result to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def fingerprint(recipes: Sequence[Path]) -> str:
    """What recipes say, without their comments, as a short hash."""
    data = [YAML(typ="safe").load(path.read_text(encoding="utf-8")) for path in recipes]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
