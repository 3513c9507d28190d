"""Update config entries about blocks: lists of positions, counts of the first or last ones, hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surgeon.errors import OperationError


def remaining(positions: Sequence[int], moved: Mapping[int, int]) -> Sequence[int]:
    """The new positions of those blocks of a list that stay, in the list's own type."""
    return type(positions)(moved[old] for old in positions if old in moved)  # type: ignore[call-arg]


def taken(value: Any, count: int, *, states: bool = False) -> list[int]:
    """The positions of the blocks that a field reads features from.

    Args:
        value: A position, or several; None for none.
        count: The number of blocks.
        states: The field counts hidden states: 0 is the input of the first block, negative numbers go with the end.
    """
    entries = value if isinstance(value, (list, tuple)) else [value]
    numbers = [entry for entry in entries if isinstance(entry, int) and not isinstance(entry, bool)]
    if states:
        return [number - 1 for number in numbers if 0 < number <= count]
    return [number for number in numbers if 0 <= number < count]


def shortened_states(value: Any, moved: Mapping[int, int]) -> Any:
    """A position in ``hidden_states``, or several, after blocks have moved."""
    if isinstance(value, (list, tuple)):
        return type(value)(shortened_states(entry, moved) for entry in value)
    return moved[value - 1] + 1 if isinstance(value, int) and value > 0 and value - 1 in moved else value


def first_ones(number: int, count: int, indices: Sequence[int], *, last: bool, field: str, container: str) -> int:
    """How many of the blocks that are left are among the first, or the last, ``number`` ones.

    Raises:
        OperationError: Those blocks would no longer stand at that end, which the config has no words for.
    """
    special = [i >= count - number if last else i < number for i in indices]
    amount = sum(special)
    expected = [False] * (len(special) - amount) + [True] * amount if last else [True] * amount + [False] * len(special)
    if special != expected[: len(special)]:
        raise OperationError(
            f"{field}: {number} says that the {'last' if last else 'first'} blocks of {container} are of another kind; "
            f"in the order {list(indices)} they would not stand there",
            hint=f"keep the blocks in their order: keep_blocks: {sorted(indices)}",
        )
    return amount
