"""The quick cases are right or refused; the others are slow. ``python -m cases`` runs all and prints the table."""

from __future__ import annotations

import pytest

from cases.harness import Case, run_case
from cases.material import Material
from cases.registry import all_cases


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """What all cases share."""
    return Material(tmp_path_factory.mktemp("cases"))


def marked(chosen: Case) -> object:
    """A case as a parameter."""
    return pytest.param(chosen, id=chosen.name, marks=[pytest.mark.slow] if chosen.slow else [])


@pytest.mark.parametrize("chosen", [marked(case) for case in all_cases()])
def test_data_names_and_files_are_not_bent(chosen: Case, material: Material) -> None:
    outcome = run_case(chosen, material).outcome
    assert outcome.word != "wrong", outcome.seen
