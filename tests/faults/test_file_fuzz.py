"""A mutant of a checkpoint is refused in one line, or read as the format's own reader reads it.

A few hundred mutants of each format here; all of them with ``python tests/faults/file_fuzz.py``, or with
``SURGEON_MUTANTS=10000 pytest -m slow tests/faults/test_file_fuzz.py``.
"""

from __future__ import annotations

import os

import pytest
from faults.file_fuzz import FORMATS, fuzz
from faults.file_mutants import mutant

SMALL = 300
"""As many as take some three seconds."""


def faults_of(form: str, count: int) -> list[str]:
    outcomes, faults = fuzz(form, 0, count)
    # Mutants that are all refused, or all whole, would show nothing.
    assert outcomes["read as the reference"] > count / 10, outcomes
    assert outcomes["refused"] > count / 10, outcomes
    return faults


@pytest.mark.parametrize("form", FORMATS)
def test_mutants_are_refused_or_read_as_the_reference_reads_them(form: str) -> None:
    assert faults_of(form, SMALL) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("form", FORMATS)
def test_ten_thousand_mutants_are_refused_or_read_as_the_reference_reads_them(form: str) -> None:
    assert faults_of(form, int(os.environ.get("SURGEON_MUTANTS", "10000"))) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_mutant_can_be_made_again_from_its_number(form: str) -> None:
    mutants = [mutant(form, number) for number in range(60)]
    assert mutants == [mutant(form, number) for number in range(60)]
    assert len(set(mutants)) > 50
