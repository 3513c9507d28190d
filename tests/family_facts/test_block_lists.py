"""Entries of configs about blocks follow the blocks that stay."""

from __future__ import annotations

import pytest

from surgeon.errors import OperationError
from surgeon.families.block_lists import count_at_end, feature_positions, move_states, remaining

MOVED = {1: 0, 4: 1, 5: 2}
"""Blocks 1, 4 and 5 of six stay."""


@pytest.mark.parametrize(("positions", "expected"), [([0, 4, 5], [1, 2]), ((5, 1), (2, 0)), ([2], [])])
def test_positions_of_kept_blocks_become_their_new_ones_in_the_same_kind_of_sequence(positions, expected):
    assert remaining(positions, MOVED) == expected


@pytest.mark.parametrize(
    ("value", "states", "expected"),
    [
        ([0, 5, 6, -1], False, [0, 5]),
        (3, False, [3]),
        ([0, 1, 6, 7], True, [0, 5]),
        (None, False, []),
        (True, False, []),
    ],
)
def test_a_hidden_state_belongs_to_the_block_before_it(value, states, expected):
    assert feature_positions(value, 6, states=states) == expected


def test_indices_of_hidden_states_move_with_their_blocks_and_others_stay():
    assert move_states([2, 5, 6], MOVED) == [1, 2, 3]
    assert move_states((0, -1), MOVED) == (0, -1), "the input of the first block, and counts from the end"
    assert move_states("pooled", MOVED) == "pooled"


@pytest.mark.parametrize(
    ("indices", "last", "expected"),
    [([0, 1, 4], False, 2), ([2, 3], False, 0), ([0, 4, 5], True, 2), ([4, 5], True, 2), ([0, 1], False, 2)],
)
def test_a_count_of_first_or_last_blocks_is_that_of_those_that_stay(indices, last, expected):
    assert count_at_end(2, 6, indices, last=last, field="dense", container="layers") == expected


def test_an_order_that_such_a_count_cannot_describe_is_refused_with_the_order_that_works():
    with pytest.raises(OperationError, match="dense: 2 says that the first 2 blocks of layers differ") as caught:
        count_at_end(2, 6, [4, 0], last=False, field="dense", container="layers")
    assert caught.value.hint == "keep the blocks in their order: keep_blocks: [0, 4]"
