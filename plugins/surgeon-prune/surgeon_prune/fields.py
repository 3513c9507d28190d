"""Define the recipe keys that the operations of this plugin have in common, and what they do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from surgeon import OperationError
from surgeon.data.sources import AnySource
from surgeon_prune.importance import By

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery
    from surgeon_prune.calls import Calls
    from surgeon_prune.groups import Group


class UnitFields(BaseModel):
    """Hold how many units stay, and how they are ranked."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    keep: PositiveInt | float
    """How many units of each layer stay: a number, or a fraction between 0 and 1. Each layer keeps as many; which ones,
    each layer decides."""
    by: By = "l2"
    """How units are ranked. l2, l1: by the norm of all of their weights. activations: by the energy of what they give
    to the layers that read them, on data: Σ E[x²] Σ w² (Wanda's score, Sun et al. 2024, squared and summed). random,
    first: baselines."""
    data: AnySource | None = None
    """For activations: a source, as in train:; its labels are not used."""
    samples: PositiveInt = 128
    """For activations: how many training samples to run."""
    seed: int = Field(default=0, ge=0)
    """For random: the seed."""

    @model_validator(mode="after")
    def _suits(self) -> Self:
        if isinstance(self.keep, float) and not 0 < self.keep < 1:
            raise ValueError(f"keep as a fraction must be between 0 and 1 (exclusive), got {self.keep}")
        if (self.by == "activations") != (self.data is not None):
            problem = "needs data, as in: data: {source: digits}" if self.data is None else "uses no data: leave it out"
            raise ValueError(f"by: {self.by} {problem}")
        return self

    def cut(
        self,
        surgery: Surgery,
        find: Callable[[Calls], Sequence[Group]],
        count: Callable[[Group], int],
        *,
        skip: bool = False,
    ) -> list[Group]:
        """Find groups, choose the units that stay, check that the others can be removed, and remove them.

        Args:
            surgery: The surgery.
            find: Finds the groups.
            count: How many units of a group stay.
            skip: Leave out groups that cannot be pruned, with a note, instead of refusing.

        Returns:
            The groups that lost units.
        """
        from surgeon_prune.groups import Group, prune
        from surgeon_prune.importance import choose

        answer = surgery.recall("groups", lambda: _checked(surgery, find, count, skip=skip))
        for site, reason in answer["left"]:
            surgery.note(f"{site or 'the network'} keeps its units: {reason}")
        groups = [Group.of(data) for data in answer["groups"]]
        counts: list[int] = answer["counts"]

        def chosen() -> list[list[int]]:
            return choose(surgery, groups, counts, self.by, data=self.data, samples=self.samples, seed=self.seed)

        if self.by in ("random", "first"):
            kept_units = surgery.recall("kept", chosen)
        else:
            kept_units = surgery.choose("kept", chosen, plan=[list(range(number)) for number in counts])
        groups = [group.keeping(units) for group, units in zip(groups, kept_units, strict=True)]
        prune(surgery, groups)
        return groups


def _checked(
    surgery: Surgery, find: Callable[[Calls], Sequence[Group]], count: Callable[[Group], int], *, skip: bool
) -> dict[str, Any]:
    """Find the groups that lose units, and check them with units that are drawn.

    Raises:
        OperationError: One cannot be pruned; with ``skip``, none can.
    """
    from surgeon_prune.calls import Calls
    from surgeon_prune.importance import drawn
    from surgeon_prune.probe import refusals

    calls = Calls(surgery)
    pairs = [(group, count(group)) for group in find(calls)]
    pairs = [(group, number) for group, number in pairs if number < group.count]
    reasons = refusals(surgery, calls, [group.keeping(drawn(group, number, 0)) for group, number in pairs])
    refused = [(group.site, reason) for (group, _), reason in zip(pairs, reasons, strict=True) if reason]
    if refused and (not skip or len(refused) == len(pairs)):
        raise OperationError(refused[0][1], hint="leave it out with at:")
    accepted = [pair for pair, reason in zip(pairs, reasons, strict=True) if not reason]
    return {
        "groups": [group.plain() for group, _ in accepted],
        "counts": [number for _, number in accepted],
        "left": refused,
    }


def summary(groups: Sequence[Group], units: str, by: str) -> str:
    """Say how many units stay, for the plan."""
    if not groups:
        return f"every layer keeps all of its {units}"
    kinds = {(len(group.kept or ()), group.count) for group in groups}
    counts = ", ".join(f"{kept} of {count}" for kept, count in sorted(kinds))
    layers = "1 layer keeps" if len(groups) == 1 else f"{len(groups)} layers keep"
    return f"{layers} {counts} {units} (by {by})"
