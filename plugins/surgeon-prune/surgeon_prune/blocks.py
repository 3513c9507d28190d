"""prune_blocks: remove the blocks that change their input least on data."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, Self

from pydantic import PositiveInt, model_validator

from surgeon import Operation, OperationError, Selector, Truncate
from surgeon.data.sources import AnySource

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class PruneBlocks(Operation):
    """Keep the blocks with the most influence on data, rather than the first ones: depth pruning.

    The influence of a block is 1 - the mean cosine similarity of its hidden states before and after (Block Influence,
    Men et al. 2024, "ShortGPT"). A block that changes the shape of its input always stays. The blocks that stay keep
    their order; ``truncate`` with ``keep_blocks`` removes the others, with all that it does for configs and caches.

    Shapes: unchanged.
    """

    keep: PositiveInt | float
    """How many blocks of the stack stay, or a fraction of each stack."""
    data: AnySource
    """The data to measure on: a source, as in train:; its labels are not used."""
    samples: PositiveInt = 64
    """How many training samples to run."""
    stack: Selector | None = None
    """The container of the blocks, if the network has several stacks."""

    @model_validator(mode="after")
    def _fraction(self) -> Self:
        if isinstance(self.keep, float) and not 0 < self.keep < 1:
            raise ValueError(f"keep as a fraction must be between 0 and 1 (exclusive), got {self.keep}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Measure the influence of blocks, and keep those with the most."""
        container = surgery.site(self.stack).name if self.stack is not None else None
        stacks = surgery.recall("stacks to prune", lambda: self._stacks(surgery, container))
        counts = [self._count(stack) for stack in stacks]
        assumed = [_positions(stack, count, None) for stack, count in zip(stacks, counts, strict=True)]
        chosen = surgery.choose("kept", lambda: self._chosen(surgery, stacks, counts), plan=assumed)
        for stack, indices in zip(stacks, chosen, strict=True):
            Truncate(keep_blocks=indices, stack=stack["container"]).apply(surgery.model, surgery)
        return surgery.model

    def _stacks(self, surgery: Surgery, container: str | None) -> list[dict[str, Any]]:
        """Describe the stacks: their blocks, the dimension of channels, and the blocks that have to stay."""
        from surgeon.surgery.features import features_at
        from surgeon_prune.calls import Calls

        stacks = [stack for stack in surgery.roles().blocks if container in (None, stack.container)]
        if not stacks:
            raise OperationError(
                f"{container or type(surgery.model).__name__} has no repeated blocks",
                hint="prune widths instead: prune_mlp, prune_heads, prune_channels",
            )
        if len(stacks) > 1 and not isinstance(self.keep, float):
            names = " | ".join(stack.container for stack in stacks)
            raise OperationError(
                f"the network has {len(stacks)} stacks of blocks; say which one to prune",
                hint=f"add stack: {names}, or give a fraction, which prunes each of them",
            )
        calls = Calls(surgery)
        return [
            {
                "container": stack.container,
                "sites": list(stack.sites),
                "axes": [features_at(surgery, site).axis for site in stack.sites],
                "fixed": [i for i, site in enumerate(stack.sites) if calls.shape(site) != tuple(surgery.shape(site))],
            }
            for stack in stacks
        ]

    def _count(self, stack: dict[str, Any]) -> int:
        """Return how many blocks of a stack stay.

        Raises:
            OperationError: There are fewer, or more have to stay.
        """
        container, count, fixed = stack["container"], len(stack["sites"]), len(stack["fixed"])
        blocks_left = max(1, ceil(self.keep * count - 1e-9)) if isinstance(self.keep, float) else self.keep
        if blocks_left > count:
            raise OperationError(
                f"{container} has {count} blocks; keep asks for {blocks_left}", hint=f"give at most {count}"
            )
        if fixed > blocks_left:
            raise OperationError(
                f"{fixed} blocks of {container} change the shape of their input and have to stay",
                hint=f"keep at least {fixed}",
            )
        return blocks_left

    def _chosen(self, surgery: Surgery, stacks: list[dict[str, Any]], counts: list[int]) -> list[list[int]]:
        from surgeon_prune.activations import influences

        axes = {site: axis for stack in stacks for site, axis in zip(stack["sites"], stack["axes"], strict=True)}
        measured = influences(surgery, self.data, self.samples, axes)
        for stack in stacks:
            influence_list = ", ".join(
                f"{i}: {measured[site]:.3f}" for i, site in enumerate(stack["sites"]) if site in measured
            )
            surgery.note(f"influence of the blocks of {stack['container']}: {influence_list}")
        return [_positions(stack, count, measured) for stack, count in zip(stacks, counts, strict=True)]


def _positions(stack: dict[str, Any], count: int, influence: Mapping[str, float] | None) -> list[int]:
    """Choose positions: blocks that must stay, then those with the most influence, or the first ones."""
    sites, fixed = stack["sites"], stack["fixed"]
    free = [position for position in range(len(sites)) if position not in fixed]
    if influence is not None:
        free.sort(key=lambda position: -influence.get(sites[position], 0.0))
    return sorted([*fixed, *free[: count - len(fixed)]])
