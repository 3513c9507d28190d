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


def _record(cpu: str = "AVX2", **facts: object) -> dict[str, object]:
    tensors = {"kept": "aa", "drawn": {"hash": "bb", "mean": 0.5}}
    return {"environment": {"cpu": cpu}, "tensors": tensors, "frozen": ["a", "b"], "output": 0.25} | facts


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"tensors": {"kept": "cc", "drawn": {"hash": "bb", "mean": 0.5}}}, "~ tensors[kept]: was 'aa', is 'cc'"),
        (
            {"tensors": {"kept": "aa", "drawn": {"hash": "cc", "mean": 0.5}}},
            "~ tensors[drawn][hash]: was 'bb', is 'cc'",
        ),
        ({"tensors": {"drawn": {"hash": "bb", "mean": 0.5}}}, "- tensors[kept]: 'aa'"),
        ({"frozen": ["a", "b", "c"]}, "+ frozen: 'c'"),
        ({"frozen": ["b", "a"]}, "~ frozen: the order was ['a', 'b'], is ['b', 'a']"),
        ({"output": 0.2501}, "~ output: was 0.25, is 0.2501"),
    ],
)
def test_a_fact_that_differs_is_named(facts: dict[str, object], line: str) -> None:
    assert differences(_record(), _record(**facts)) == [line]


def test_another_cpu_may_draw_other_bits_but_no_other_values() -> None:
    other_bits = {"kept": "aa", "drawn": {"hash": "cc", "mean": 0.5001}}
    other_values = {"kept": "aa", "drawn": {"hash": "cc", "mean": 0.6}}
    assert not differences(_record(), _record("NEON", tensors=other_bits, output=0.2501))
    assert differences(_record(), _record("NEON", tensors=other_values)) == ["~ tensors[drawn][mean]: was 0.5, is 0.6"]
