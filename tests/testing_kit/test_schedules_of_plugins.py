"""check_schedule: surgeon's own curves pass, and each mistake is named."""

from __future__ import annotations

import math
from itertools import count

import pytest
import torch

from surgeon.testing import check_schedule
from surgeon.training.schedules import surgeon_schedules

STEPS = count()


def by_division(progress):
    return 0.1 / progress


def to_the_end(progress):
    return math.log(1 - progress)


def counting(progress):
    return next(STEPS) / 200


def in_steps(progress):
    return min(1.0, progress / 1000 // 1)


def without_return(progress):
    progress * 2


def as_tensor(progress):
    return torch.tensor(progress)


def noisy(progress):
    return progress + 0.01 * torch.rand(()).item()


def endless(progress):
    return math.inf if progress > 0.9 else progress


@pytest.mark.parametrize("name", surgeon_schedules())
def test_the_built_in_curves_pass(name):
    values = check_schedule(surgeon_schedules()[name])
    assert (len(values), values[0]) == (101, 0)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (by_division, "at 0 .*raised ZeroDivisionError.*begins at 0"),
        (to_the_end, "at 1 .*raised ValueError.*ends at 1"),
        (counting, "when it is asked again.*resumes"),
        (in_steps, "is 0 from beginning to end.*not a count of steps"),
        (without_return, "returned None; expected a finite number"),
        (as_tensor, "returned a Tensor .*expected a finite number"),
        (noisy, "draws or seeds torch's random numbers"),
        (endless, "returned the float inf; expected a finite number"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_is_named(curve, message):
    with pytest.raises(AssertionError, match=message):
        check_schedule(curve)


def test_an_option_that_it_does_not_take_is_refused_with_those_that_it_takes():
    assert check_schedule(surgeon_schedules()["dann"], gamma=5.0)[-1] == pytest.approx(0.98661, abs=1e-4)
    with pytest.raises(AssertionError, match=r"unexpected keyword argument 'gama'[\s\S]*gamma"):
        check_schedule(surgeon_schedules()["dann"], gama=5.0)
