"""All cases, by kind."""

from __future__ import annotations

from cases import (
    changed_layers,
    class_counts,
    companions,
    folders,
    frozen_norms,
    hints,
    leftovers,
    missing,
    names,
    predictions,
    splits,
    tables,
    thinning,
    ties,
    trainer_arguments,
    training_numbers,
    trust,
    validation,
    verification,
    whole_modules,
    wrapped_files,
)
from cases.harness import CASES, Case

FILES = (
    names,
    predictions,
    splits,
    tables,
    missing,
    validation,
    training_numbers,
    trainer_arguments,
    wrapped_files,
    changed_layers,
    leftovers,
    folders,
    whole_modules,
    ties,
    thinning,
    verification,
    companions,
    class_counts,
    frozen_norms,
    hints,
    trust,
)


def all_cases() -> list[Case]:
    """Every case, in the order in which the kinds are numbered."""
    return sorted(CASES, key=lambda chosen: [int(part) if part.isdigit() else 99 for part in chosen.kind.split(".")])
