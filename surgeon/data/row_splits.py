"""Choose the rows to hold out: by class, by group, in folds, and the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from surgeon.errors import TrainingError

Rows = np.ndarray[Any, np.dtype[np.int64]]
"""Row numbers in ascending order."""

# The held-out samples must not depend on a recipe's seed: otherwise "test" would differ between runs, and training
# samples of one network could be test samples of another.
SPLIT_SEED = 20260


def hold_out(size: int, fraction: float, *, strata: Rows | None = None, groups: Sequence[Any] | None = None) -> Rows:
    """Choose about ``fraction`` of ``size`` rows.

    Args:
        size: The number of rows.
        fraction: The share to hold out.
        strata: The class of each row, negative for none; every class with at least two rows is in both parts.
        groups: The group of each row; a group is never in both parts. None is a group of one row.

    Raises:
        TrainingError: There are fewer than two rows or groups.
    """
    if groups is not None:
        return _rows(_by_group(groups, strata, [1 - fraction, fraction]) == 1)
    if size < 2:
        raise TrainingError(f"with {size} samples, none can be held out", where="train.data")
    total = min(size - 1, max(1, round(size * fraction)))
    chosen = np.zeros(size, bool)
    for rows, count in _allotted(size, strata, total, _generator(SPLIT_SEED)):
        chosen[rows[:count]] = True
    return _rows(chosen)


def fold(size: int, count: int, index: int, *, strata: Rows | None = None, groups: Sequence[Any] | None = None) -> Rows:
    """Choose fold ``index`` of ``count``: over all folds, every row is chosen once.

    Raises:
        TrainingError: There are fewer rows or groups than folds.
    """
    if groups is not None:
        return _rows(_by_group(groups, strata, [1 / count] * count) == index)
    if size < count:
        raise TrainingError(f"{size} samples are too few for {count} folds", where="train.data", hint="use fewer folds")
    folds = np.zeros(size, np.int64)
    dealt = 0
    for rows in _shuffled(size, strata, _generator(SPLIT_SEED)):
        folds[rows] = np.arange(dealt, dealt + len(rows)) % count  # continue where the previous class ended
        dealt += len(rows)
    return _rows(folds == index)


def draw(size: int, count: int, seed: int, *, strata: Rows | None = None) -> Rows:
    """Draw ``count`` of ``size`` rows with ``seed``; at least one of every class, if ``count`` is large enough."""
    chosen = np.zeros(size, bool)
    classes = 0 if strata is None else len(np.unique(strata))
    for rows, number in _allotted(size, strata if classes <= count else None, count, _generator(seed), least=1):
        chosen[rows[:number]] = True
    return _rows(chosen)


def complement(size: int, held_rows: Rows) -> Rows:
    """Return the rows that are not held out (numpy's ``setdiff1d`` takes ten seconds for a million)."""
    mask = np.ones(size, bool)
    mask[held_rows] = False
    return _rows(mask)


def digest(ids: Iterable[object]) -> str:
    """Return a digest of what is held out, independent of its order."""
    text = "\n".join(sorted(map(str, ids)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rows(chosen: Any) -> Rows:
    return np.flatnonzero(chosen).astype(np.int64)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _shuffled(size: int, strata: Rows | None, generator: torch.Generator) -> list[Rows]:
    """Return the rows of each class in random order."""
    order = torch.randperm(size, generator=generator).numpy()
    if strata is None:
        return [order]
    return [order[strata[order] == label] for label in np.unique(strata)] if len(strata) else []


def _allotted(
    size: int, strata: Rows | None, total: int, generator: torch.Generator, *, least: int = 0
) -> list[tuple[Rows, int]]:
    """Return how many rows to choose of each class, ``total`` if possible (largest remainders)."""
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
    # one at a time: add to the class furthest below its share, or remove from the one furthest above
    while (missing := total - counts.sum()) != 0:
        room = counts < high if missing > 0 else counts > low
        if not room.any():
            break
        ahead = np.where(room, (quota - counts) * np.sign(missing), -np.inf)
        counts[int(ahead.argmax())] += int(np.sign(missing))
    return list(zip(classes, counts.tolist(), strict=True))


def _by_group(groups: Sequence[Any], strata: Rows | None, shares: Sequence[float]) -> Rows:
    """Return the part of each row: every group in one part, classes in about the given shares."""
    texts = [f"\0{row}" if group is None else str(group) for row, group in enumerate(groups)]
    names, members = np.unique(np.array(texts, dtype=object), return_inverse=True)
    if len(names) < len(shares):
        raise TrainingError(
            f"{len(names)} groups are too few for {len(shares)} parts",
            where="train.data.group",
            hint="use smaller groups",
        )
    _, classes = np.unique(strata if strata is not None else np.zeros(len(groups)), return_inverse=True)
    table = np.zeros((len(names), classes.max() + 1))
    np.add.at(table, (members, classes), 1)
    target = np.outer(shares, table.sum(0))
    taken_counts = np.zeros_like(target)
    part = np.full(len(names), -1)
    order = torch.randperm(len(names), generator=_generator(SPLIT_SEED)).numpy()
    order = order[
        np.argsort(-table.sum(1)[order], kind="stable")
    ]  # largest groups first, so that small ones balance the parts
    for position, group in enumerate(order):
        empty = [number for number in range(len(shares)) if not (part == number).any()]
        remaining = len(order) - position
        open_parts = empty if remaining <= len(empty) else range(len(shares))
        need = {n: float((table[group] * (target[n] - taken_counts[n]) / target[n]).sum()) for n in open_parts}
        part[group] = max(need, key=lambda number: need[number])
        taken_counts[part[group]] += table[group]
    return part[members].astype(np.int64)
