"""Update config entries about blocks: lists of positions, counts of first or last blocks, hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surgeon.errors import OperationError


def remaining(positions: Sequence[int], moved: Mapping[int, int]) -> Sequence[int]:
    """Map the positions of the kept blocks to their new ones, keeping the type of the sequence."""
    return type(positions)(moved[old] for old in positions if old in moved)  # type: ignore[call-arg]


def feature_positions(value: Any, count: int, *, states: bool = False) -> list[int]:
    """Return the positions of the blocks that a field reads features from.

    Args:
        value: One position, several, or None.
        count: The number of blocks.
        states: Whether the field counts hidden states. State 0 is the input of the first block, so block ``i`` makes
            state ``i + 1``. Negative numbers count from the end and need no change.
    """
    entries = value if isinstance(value, (list, tuple)) else [value]
    numbers = [entry for entry in entries if isinstance(entry, int) and not isinstance(entry, bool)]
    if states:
        return [number - 1 for number in numbers if 0 < number <= count]
    return [number for number in numbers if 0 <= number < count]


def move_states(value: Any, moved: Mapping[int, int]) -> Any:
    """Map one index into ``hidden_states``, or several, to its value after blocks have moved."""
    if isinstance(value, (list, tuple)):
        return type(value)(move_states(entry, moved) for entry in value)
    return moved[value - 1] + 1 if isinstance(value, int) and value > 0 and value - 1 in moved else value


def count_at_end(number: int, count: int, indices: Sequence[int], *, last: bool, field: str, container: str) -> int:
    """Count how many of the kept blocks are among the first, or the last, ``number`` blocks.

    Raises:
        OperationError: The kept blocks are in an order that such a count cannot describe.
    """
    special = [i >= count - number if last else i < number for i in indices]
    amount = sum(special)
    expected = [False] * (len(special) - amount) + [True] * amount if last else [True] * amount + [False] * len(special)
    if special != expected[: len(special)]:
        raise OperationError(
            f"{field}: {number} says that the {'last' if last else 'first'} {number} blocks of {container} differ from "
            f"the others; in the order {list(indices)} they are no longer at that end",
            hint=f"keep the blocks in their order: keep_blocks: {sorted(indices)}",
        )
    return amount
