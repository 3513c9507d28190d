"""Shapes and ranges of declared arguments, evaluated for a network."""

from __future__ import annotations

import pytest
import torch

from surgeon.families.expressions import SIZES, UnknownNameError, evaluate, specs_of
from surgeon.interfaces.family import Argument

CONFIG = {"channels": 3, "side": 16, "vocabulary": 100}


def lookup(names: tuple[str, ...]) -> int | None:
    return next((CONFIG[name] for name in names if name in CONFIG), None)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("channels*side*side+1", 769),
        ("side//channels*2", 10),
        ("depth|side", 16),
        ("depth|7", 7),
        ("7|side", 16),
        ("tokens", SIZES["tokens"]),
        ("2+side//5+1", 6),
    ],
)
def test_alternatives_bind_before_products_and_products_before_sums(expression, expected):
    assert evaluate(expression, lookup) == expected


def test_a_name_without_a_value_is_unknown():
    with pytest.raises(UnknownNameError, match="depth"):
        evaluate("side+depth*2", lookup)


def test_arguments_whose_names_have_no_value_or_whose_condition_is_0_are_left_out():
    rows = [
        Argument("pixels", "batch|1 depth side"),
        Argument("pixels", "1 channels side", where="side+0*channels", high="vocabulary", dtype="int64"),
        Argument("pixels", "1", where="0"),
    ]
    (spec,) = specs_of(rows, lookup)
    assert (spec.shape, spec.dtype, spec.high) == ((1, 3, 16), torch.int64, 100)
