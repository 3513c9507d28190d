"""A seed within a block determines what is drawn there and nothing after it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from surgeon.graph.random_state import seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_the_same_seed_draws_the_same_and_another_draws_others():
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])


@pytest.mark.parametrize("failing", [False, True])
def test_all_three_generators_go_on_where_they_were_after_an_error_too(failing):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with seeded(2**40):
            draw()
            if failing:
                raise ValueError
    except ValueError:
        pass
    assert draw() == expected
