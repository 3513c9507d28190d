"""Choose the rows that are held out: by class, by group, in folds, and the same ones in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from surgeon.errors import TrainingError

Rows = np.ndarray[Any, np.dtype[np.int64]]
"""Numbers of rows, in ascending order."""

# Which samples are held out must never depend on a recipe's seed, or "test" would mean something else in every run and
# a network's own training samples could return as another's test samples.
SPLIT_SEED = 20260


def hold_out(size: int, fraction: float, *, strata: Rows | None = None, groups: Sequence[Any] | None = None) -> Rows:
    """Choose about ``fraction`` of ``size`` rows.

    Args:
        size: The number of rows.
        fraction: The share to hold out.
        strata: The class of each row, negative where it has none; every class of at least two rows is then on both
            sides.
        groups: The group of each row; none is then on both sides.

    Raises:
        TrainingError: Fewer than two rows, or than two groups.
    """
    if groups is not None:
        return _rows(_by_group(groups, strata, [1 - fraction, fraction]) == 1)
    if size < 2:
        raise TrainingError(f"there are {size} samples, of which none can be held out", where="train.data")
    total = min(size - 1, max(1, round(size * fraction)))
    chosen = np.zeros(size, bool)
    for rows, count in _allotted(size, strata, total, _generator(SPLIT_SEED)):
        chosen[rows[:count]] = True
    return _rows(chosen)


def fold(size: int, count: int, index: int, *, strata: Rows | None = None, groups: Sequence[Any] | None = None) -> Rows:
    """Choose fold ``index`` of ``count``: over all folds, every row is chosen once.

    Raises:
        TrainingError: There are fewer rows, or groups, than folds.
    """
    if groups is not None:
        return _rows(_by_group(groups, strata, [1 / count] * count) == index)
    if size < count:
        raise TrainingError(f"{size} samples do not make {count} folds", where="train.data", hint="use fewer folds")
    folds = np.zeros(size, np.int64)
    dealt = 0
    for rows in _shuffled(size, strata, _generator(SPLIT_SEED)):
        folds[rows] = np.arange(dealt, dealt + len(rows)) % count  # goes on where the class before ended
        dealt += len(rows)
    return _rows(folds == index)


def draw(size: int, count: int, seed: int, *, strata: Rows | None = None) -> Rows:
    """Draw ``count`` of ``size`` rows by ``seed``; of every class at least one, where they suffice for that."""
    chosen = np.zeros(size, bool)
    classes = 0 if strata is None else len(np.unique(strata))
    for rows, number in _allotted(size, strata if classes <= count else None, count, _generator(seed), least=1):
        chosen[rows[:number]] = True
    return _rows(chosen)


def others(size: int, held: Rows) -> Rows:
    """The rows that are not held out (numpy's ``setdiff1d`` takes ten seconds for a million)."""
    kept = np.ones(size, bool)
    kept[held] = False
    return _rows(kept)


def digest(ids: Iterable[object]) -> str:
    """A digest of what is held out, whatever its order."""
    text = "\n".join(sorted(map(str, ids)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rows(chosen: Any) -> Rows:
    return np.flatnonzero(chosen).astype(np.int64)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _shuffled(size: int, strata: Rows | None, generator: torch.Generator) -> list[Rows]:
    """The rows of each class, in an order that is drawn."""
    order = torch.randperm(size, generator=generator).numpy()
    if strata is None:
        return [order]
    return [order[strata[order] == each] for each in np.unique(strata)] if len(strata) else []


def _allotted(
    size: int, strata: Rows | None, total: int, generator: torch.Generator, *, least: int = 0
) -> list[tuple[Rows, int]]:
    """How many rows of each class are chosen, ``total`` in all as far as the classes allow (largest remainders)."""
    classes = _shuffled(size, strata, generator)
    sizes = np.array([len(rows) for rows in classes])
    if strata is None or not (sizes > 1).any():
        whole = np.concatenate(classes) if classes else np.zeros(0, np.int64)
        return [(whole, total)]
    labelled = np.array([strata[rows[0]] >= 0 for rows in classes])  # rows without a label need not be on both sides
    low = labelled & (sizes >= (1 if least else 2))
    high = sizes if least else np.maximum(sizes - 1, 0)
    quota = sizes * total / size
    counts = np.clip(np.floor(quota).astype(int), low.astype(int), high)
    # one at a time to the class that is the furthest behind its share, or taken from the one that is ahead
    while (missing := total - counts.sum()) != 0:
        room = counts < high if missing > 0 else counts > low
        if not room.any():
            break
        ahead = np.where(room, (quota - counts) * np.sign(missing), -np.inf)
        counts[int(ahead.argmax())] += int(np.sign(missing))
    return list(zip(classes, counts.tolist(), strict=True))


def _by_group(groups: Sequence[Any], strata: Rows | None, shares: Sequence[float]) -> Rows:
    """The part that each row is in; every group in one part, classes in about the same shares."""
    names, members = np.unique(np.array([str(each) for each in groups], dtype=object), return_inverse=True)
    if len(names) < len(shares):
        raise TrainingError(
            f"{len(names)} groups do not make {len(shares)} parts", where="train.data.group", hint="group by less"
        )
    _, classes = np.unique(strata if strata is not None else np.zeros(len(groups)), return_inverse=True)
    table = np.zeros((len(names), classes.max() + 1))
    np.add.at(table, (members, classes), 1)
    wanted = np.outer(shares, table.sum(0))
    held = np.zeros_like(wanted)
    part = np.full(len(names), -1)
    order = torch.randperm(len(names), generator=_generator(SPLIT_SEED)).numpy()
    order = order[np.argsort(-table.sum(1)[order], kind="stable")]  # the largest first: the small ones even it out
    for position, group in enumerate(order):
        empty = [number for number in range(len(shares)) if not (part == number).any()]
        left = len(order) - position
        open_parts = empty if left <= len(empty) else range(len(shares))
        need = {n: float((table[group] * (wanted[n] - held[n]) / wanted[n]).sum()) for n in open_parts}
        part[group] = max(need, key=lambda number: need[number])
        held[part[group]] += table[group]
    return part[members].astype(np.int64)
