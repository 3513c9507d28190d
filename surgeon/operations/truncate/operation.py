"""End a network at a site, or remove some of its blocks."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from surgeon.errors import OperationError, suggest
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from torch import nn

    from surgeon.operations.truncate.keep_blocks import Thinning
    from surgeon.surgery.context import Surgery


class Truncate(Operation):
    """End the network at a site, or keep only some of its blocks.

    ``after`` returns the output of a site: features ``(batch, channels, …)`` or ``(batch, tokens, width)``, bit for bit
    as in the whole network. Modules that were neither run nor read before it are removed from the network and the
    file.

    ``keep_blocks`` removes blocks from a stack (depth pruning). The stem, the norms and the head stay, the blocks are
    renumbered, and the config is updated, so that a transformers model keeps its class and generation with a cache
    works.
    """

    after: Selector | None = None
    """The site at which the forward pass ends."""
    keep_blocks: int | float | list[int] | None = None
    """The number of first blocks to keep, a fraction of them (in a hybrid network, at least one with attention stays),
    or a list of the positions to keep."""
    stack: Selector | None = Field(default=None)
    """The container of the blocks, if the network has several stacks."""

    @model_validator(mode="after")
    def _one_way(self) -> Truncate:
        if (self.after is None) == (self.keep_blocks is None):
            raise ValueError("give exactly one of after and keep_blocks")
        if self.stack is not None and self.keep_blocks is None:
            raise ValueError("stack is only used with keep_blocks")
        keep = self.keep_blocks
        if isinstance(keep, float) and not 0 < keep < 1:
            raise ValueError(f"keep_blocks as a fraction must be between 0 and 1 (exclusive), got {keep}")
        if isinstance(keep, int) and keep < 1:
            raise ValueError(f"keep_blocks must be at least 1, got {keep}")
        if isinstance(keep, list) and (not keep or len(set(keep)) != len(keep) or min(keep) < 0):
            raise ValueError(f"keep_blocks as a list must hold distinct positions from 0 on, got {keep}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """End the network or remove blocks; see :class:`Operation`."""
        if self.after is not None:
            _end_at(surgery, self.after)
        else:
            from surgeon.operations.truncate.keep_blocks import thin

            thin(surgery, [self._thinning(surgery, stack) for stack in self._stacks(surgery)])
        return surgery.model

    def _stacks(self, surgery: Surgery) -> list[dict[str, Any]]:
        from surgeon.operations.truncate.keep_blocks import lists_beside

        def described() -> list[dict[str, Any]]:
            stacks: list[dict[str, Any]] = []
            listed: list[str] = []
            for stack in surgery.roles().blocks:
                if stack.container not in listed:
                    beside = lists_beside(surgery, stack.container, listed)
                    stacks.append(
                        {
                            "container": stack.container,
                            "sites": stack.sites,
                            "fields": stack.config_fields,
                            "beside": beside,
                        }
                    )
                    listed += [stack.container, *beside]
            return stacks

        stacks = surgery.recall("stacks", described)
        if not stacks:
            raise OperationError(
                f"{type(surgery.model).__name__} has no repeated blocks to thin",
                hint="end the network at a site instead: after: SITE",
            )
        names = [stack["container"] for stack in stacks]
        if self.stack is not None:
            container = surgery.site(self.stack).name
            chosen = [stack for stack in stacks if container in (stack["container"], *stack["beside"])]
            if not chosen:
                raise OperationError(
                    f"{container} is not a container of repeated blocks",
                    hint=suggest(container, names) or f"the containers are {', '.join(names)}",
                )
            return chosen
        if len(stacks) > 1 and not isinstance(self.keep_blocks, float):
            raise OperationError(
                f"the network has {len(stacks)} stacks of blocks; say which one to thin",
                hint=f"add stack: {' | '.join(names)}, or give a fraction, which thins each of them",
            )
        return list(stacks)

    def _thinning(self, surgery: Surgery, stack: dict[str, Any]) -> Thinning:
        from surgeon.operations.truncate.keep_blocks import Thinning, with_attention

        container, count, keep = stack["container"], len(stack["sites"]), self.keep_blocks
        if isinstance(keep, float):
            first = list(range(max(1, ceil(keep * count - 1e-9))))
            return Thinning(**stack, indices=with_attention(surgery, container, count, first))
        positions = list(range(keep)) if isinstance(keep, int) else list(keep or [])
        if max(positions) >= count:
            raise OperationError(
                f"{container} has {count} blocks (0 to {count - 1}); keep_blocks asks for {keep}",
                hint=f"give at most {count}" if isinstance(keep, int) else f"positions go up to {count - 1}",
            )
        return Thinning(**stack, indices=positions)


def _end_at(surgery: Surgery, selector: str) -> None:
    site = surgery.site(selector)
    if not site.name:
        raise OperationError("the forward already ends at the root", hint="name a site inside the network")
    parameters = sum(p.numel() for p in surgery.model.parameters())
    shape = surgery.shape(site)
    surgery.cut(site)
    for aux in surgery.role("aux"):  # it would run in training, and its result would not be used
        surgery.remove(aux, optional=True)
    remaining = sum(p.numel() for p in surgery.model.parameters())
    surgery.note(
        f"ends at {site}: features {shape}; the forward exits there; {parameters - remaining:,} parameters less"
    )
