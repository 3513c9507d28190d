"""Surgery gives what it gave when the records were made; ``golden`` says how to make them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden.cases import CASES
from golden.differences import differences
from golden.records import RECORDS, make_record, read_record

SHOWN = 40


@pytest.mark.parametrize("name", CASES)
def test_a_recipe_gives_what_was_recorded(name: str, tmp_path: Path) -> None:
    lines = differences(read_record(name), make_record(CASES[name], tmp_path))
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    assert not lines, "\n".join(
        [
            f"{len(lines)} facts of the golden case {name} differ (- gone, + new, ~ changed):",
            *lines[:SHOWN],
            *more,
            f"If that is intended, record again: PYTHONPATH=tests python -m golden {name}",
        ]
    )


def test_every_record_belongs_to_a_case() -> None:
    assert {path.stem for path in RECORDS.glob("*.json")} == set(CASES)
