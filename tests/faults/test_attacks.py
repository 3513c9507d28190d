"""A few cases of each attack; all of them with ``PYTHONPATH=tests python -m faults --full``, see ``README.md`` here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import poisoned
from faults.__main__ import PARTS

import surgeon

QUICK = ("kills", "training", "places", "structure")
"""The attacks of which a few cases are tried by default."""
REPOSITORY = Path(__file__).resolve().parents[2]


def attack(*arguments: str) -> str:
    """Run the harness in a process of its own: it forks, which a process with threads must not."""
    paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "faults", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.timeout(900)  # for a machine that does much else: it takes half a minute of a processor
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads /proc")
def test_a_few_cases_of_attacks_find_no_fault() -> None:
    shown = attack(*QUICK)
    assert shown.count(" 0 faults") == len(QUICK), shown


def test_every_operation_has_a_case_with_poisoned_memory() -> None:
    tried = {step["op"] for _, steps, _ in poisoned.subjects().values() for step in steps}
    assert set(surgeon.describe_operations(surgeon.load_plugins(installed=False))) == tried


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("part", PARTS)
def test_every_case_of_an_attack_finds_no_fault(part: str) -> None:
    shown = attack(part, "--full")
    assert " 0 faults" in shown, shown
