"""Rank the units of a group, and choose those that stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from surgeon import OperationError

if TYPE_CHECKING:
    import torch

    from surgeon import Source
    from surgeon.surgery.context import Surgery
    from surgeon_prune.groups import Group

By = Literal["l2", "l1", "activations", "random", "first"]


def how_many(keep: int | float, count: int, multiple: int, where: str) -> int:
    """Return how many of ``count`` units stay: a number, or a fraction rounded to a multiple.

    Raises:
        OperationError: There are not that many.
    """
    if isinstance(keep, float):
        nearest = max(1, round(keep * count / multiple)) * multiple
        return min(nearest, count // multiple * multiple)
    if keep > count or keep % multiple:
        raise OperationError(
            f"{where} has {count} units, in steps of {multiple}; keep asks for {keep}",
            hint=f"give a multiple of {multiple} up to {count // multiple * multiple}",
        )
    return keep


def choose(
    surgery: Surgery,
    groups: Sequence[Group],
    counts: Sequence[int],
    by: By,
    *,
    data: Source | None,
    samples: int,
    seed: int,
) -> list[list[int]]:
    """Choose the units of each group that stay; called inside ``recall`` or ``choose``.

    Args:
        surgery: Reads weights.
        groups: The groups.
        counts: How many units of each stay.
        by: ``l2`` and ``l1``: the norm of all weights of a unit. ``activations``: the energy of what a unit gives to
            the layers that read it. ``random`` and ``first`` are baselines.
        data: The data for ``activations``.
        samples: How many of its samples.
        seed: The seed for ``random``.
    """
    import torch

    if by == "activations":
        assert data is not None
        scores = _by_activations(surgery, groups, data, samples)
    elif by in ("l1", "l2"):
        scores = [_by_magnitude(surgery, group, 1 if by == "l1" else 2) for group in groups]
    elif by == "random":
        pairs = enumerate(zip(groups, counts, strict=True))
        return [drawn(group, count, seed + 7919 * number) for number, (group, count) in pairs]
    else:
        scores = [-torch.arange(group.count, dtype=torch.float) for group in groups]
    return [_largest(score, count, group.bins) for group, score, count in zip(groups, scores, counts, strict=True)]


def drawn(group: Group, count: int, seed: int) -> list[int]:
    """Draw units that stay, under a seed."""
    import torch

    return _largest(torch.rand(group.count, generator=torch.Generator().manual_seed(seed)), count, group.bins)


def _largest(scores: torch.Tensor, count: int, bins: int) -> list[int]:
    """Return the positions of the largest scores, as many from each bin; of equal ones the first."""
    import torch

    width = len(scores) // bins
    positions: list[int] = []
    for start in range(0, len(scores), width):
        order = torch.argsort(scores[start : start + width], descending=True, stable=True)
        positions += [start + int(i) for i in order[: count // bins]]
    return sorted(positions)


def _by_magnitude(surgery: Surgery, group: Group, power: int) -> torch.Tensor:
    """Return the norm of the weights of each unit over all layers of its group (Fang et al. 2023, group norm)."""
    import torch

    total = torch.zeros(group.count)
    for entry in group.slices:
        tensor = getattr(surgery.model.get_submodule(entry.site), entry.name)
        if tensor.dim() < 2 or not tensor.is_floating_point():
            continue
        weight = surgery.weight(tensor).float().abs()
        other_axes = [axis for axis in range(weight.dim()) if axis != entry.axis]
        values = (weight.square() if power == 2 else weight).sum(other_axes)
        _add(total, values, entry.unit_of(weight.shape[entry.axis], group.count))
    return total.sqrt() if power == 2 else total


def _by_activations(surgery: Surgery, groups: Sequence[Group], data: Source, samples: int) -> list[torch.Tensor]:
    """Return the energy of what each unit gives to the layers that read it: Σ E[x_j²] Σ_i w_ij².

    It is the square of Wanda's ``|w_ij| · ‖x_j‖`` (Sun et al. 2024), summed over the weights that read the unit.
    """
    import torch

    from surgeon_prune.activations import read_energies, weight_energy
    from surgeon_prune.groups import READS

    readers = {entry.site: entry for group in groups for entry in group.slices if entry.role == READS}
    modules = dict(surgery.model.named_modules())
    sites = {site: 1 if hasattr(modules[site], "kernel_size") else -1 for site in readers}
    energies = read_energies(surgery, data, samples, sites)
    scores = []
    for group in groups:
        total = torch.zeros(group.count)
        for entry in group.slices:
            if entry.role == READS:
                weight = surgery.weight(getattr(modules[entry.site], entry.name))
                energy = energies[entry.site] * weight_energy(weight, entry.axis)
                _add(total, energy, entry.unit_of(len(energy), group.count))
        if not math.isfinite(float(total.sum())):
            raise OperationError(f"{group.site or 'the network'}: what its layers read on the data is not finite")
        scores.append(total)
    return scores


def _add(total: torch.Tensor, values: torch.Tensor, units: torch.Tensor) -> None:
    """Add values to the totals of their units."""
    inside = units >= 0
    total.index_add_(0, units[inside], values[inside].to(total.dtype))
