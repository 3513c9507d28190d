"""Which rows are held out: by class, by group, in folds, and always the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from surgeon.data.row_splits import draw, fold, hold_out
from surgeon.errors import TrainingError

RARE = np.array([0] * 200 + [1] * 100 + [2] * 6)


def test_every_class_is_on_both_sides_in_its_share():
    held = hold_out(len(RARE), 0.2, strata=RARE)
    assert np.bincount(RARE[held]).tolist() == [40, 20, 1]
    assert np.array_equal(held, hold_out(len(RARE), 0.2, strata=RARE))


def test_a_class_of_one_row_is_trained_on():
    strata = np.array([0] * 9 + [1])
    assert 1 not in strata[hold_out(10, 0.5, strata=strata)]


def test_without_classes_the_share_is_held_out_and_one_row_at_least_stays_on_each_side():
    assert len(hold_out(100, 0.25)) == 25
    assert len(hold_out(2, 0.99)) == len(hold_out(2, 0.01)) == 1
    assert len(hold_out(3, 0.5, strata=np.array([0, 1, 2]))) in (1, 2)
    with pytest.raises(TrainingError, match="none can be held out"):
        hold_out(1, 0.5)


def test_no_group_is_on_two_sides_and_classes_keep_about_their_shares():
    generator = np.random.default_rng(0)
    groups = generator.integers(40, size=400)
    strata = (generator.random(400) < 0.3).astype(int)
    held = hold_out(400, 0.25, strata=strata, groups=groups.tolist())
    rest = np.setdiff1d(np.arange(400), held)
    assert not set(groups[held]) & set(groups[rest])
    assert abs(len(held) - 100) <= 12
    assert abs(strata[held].mean() - strata.mean()) < 0.05


def test_folds_hold_out_every_row_once_with_all_classes_or_whole_groups():
    strata = np.array([0] * 20 + [1] * 10)
    folds = [fold(30, 5, index, strata=strata) for index in range(5)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(30))
    assert all(np.bincount(strata[rows]).tolist() == [4, 2] for rows in folds)
    groups = [row // 3 for row in range(30)]
    grouped = [fold(30, 5, index, groups=groups) for index in range(5)]
    assert sorted(np.concatenate(grouped).tolist()) == list(range(30))
    assert all(len({groups[row] for row in rows}) * 3 == len(rows) for rows in grouped)


@pytest.mark.parametrize("groups", [[0] * 10, ["a"] * 9 + ["a"]])
def test_fewer_groups_than_parts_are_refused(groups):
    with pytest.raises(TrainingError, match="1 groups are too few for 2 parts"):
        hold_out(10, 0.5, groups=groups)


def test_fewer_rows_than_folds_are_refused():
    with pytest.raises(TrainingError, match="3 samples are too few for 5 folds"):
        fold(3, 5, 0)


def test_samples_are_drawn_of_every_class_whatever_the_seed():
    for seed in range(20):
        chosen = draw(len(RARE), 30, seed, strata=RARE)
        assert len(chosen) == 30
        assert set(RARE[chosen]) == {0, 1, 2}
    assert not np.array_equal(draw(306, 30, 0, strata=RARE), draw(306, 30, 1, strata=RARE))
    assert len(draw(306, 2, 0, strata=RARE)) == 2
