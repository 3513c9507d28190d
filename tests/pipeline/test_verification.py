"""What a verification says of what was compared."""

from __future__ import annotations

import pytest

import surgeon


@pytest.mark.parametrize(
    ("kept", "changed", "warned"),
    [(0, ("a", "b"), True), (1, ("b",), False), (2, (), False), (0, (), False), (None, (), False)],
)
def test_a_source_of_which_nothing_is_left_is_not_said_to_be_the_source(kept, changed, warned):
    facts = list(surgeon.Verification(2, kept, changed, (), {}, 3, 1).facts())
    assert any("another source of the same shapes would pass" in text for _, text in facts) == warned
