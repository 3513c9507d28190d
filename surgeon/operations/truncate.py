"""Cut a network short, or thin its stack of blocks."""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from surgeon.errors import OperationError, suggest
from surgeon.operation import Operation, Selector

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery import Surgery

ATTENDS = re.compile(r"^(?!linear).*attention|^hybrid$")
"""The kinds of blocks, as transformers calls them, whose caches know how long the text is."""
KINDS = ("layer_types", "layers_block_type")
"""Where a config says of what kind each block is, be it a setting or worked out from others."""
INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "block_idx", "idx")
"""Where a block keeps its own position: a decoder's cache is addressed by it."""


class Truncate(Operation):
    """End the network at a site, or keep only some of its blocks.

    ``after`` makes what a site produces the output: features ``(batch, channels, …)`` or
    ``(batch, tokens, width)``, bit for bit as in the whole network. What neither ran nor was read before
    that leaves the tree and the file.

    ``keep_blocks`` thins a stack of blocks (depth pruning): the stem, the norms and the head stay, the
    blocks are renumbered, and the config's counts follow, so that a transformers model remains a stock
    class and its cached generation works.
    """

    after: Selector | None = None
    """The site at which the forward ends."""
    keep_blocks: int | float | list[int] | None = None
    """The first N blocks, a fraction of them from the first on, or the positions of those that stay."""
    stack: Selector | None = Field(None)
    """The container of the blocks, where the network has several stacks."""

    @model_validator(mode="after")
    def _one_way(self) -> Truncate:
        if (self.after is None) == (self.keep_blocks is None):
            raise ValueError("exactly one of after and keep_blocks says what to cut")
        if self.stack is not None and self.keep_blocks is None:
            raise ValueError("stack goes with keep_blocks")
        keep = self.keep_blocks
        if isinstance(keep, float) and not 0 < keep < 1:
            raise ValueError(f"a fraction lies between 0 and 1, not at {keep}")
        if isinstance(keep, int) and keep < 1:
            raise ValueError("at least one block has to stay")
        if isinstance(keep, list) and (not keep or len(set(keep)) != len(keep) or min(keep) < 0):
            raise ValueError("positions of blocks are distinct and count from 0")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Cut; see :class:`Operation`."""
        if self.after is not None:
            _end_at(surgery, self.after)
        else:
            for stack in self._stacks(surgery):
                _thin(surgery, stack, self._indices(stack))
        return surgery.model

    def _stacks(self, surgery: Surgery) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            return [
                {"container": s.container, "sites": list(s.sites), "fields": list(s.config_fields)}
                for s in surgery.roles().blocks
            ]

        stacks = surgery.recall("stacks of blocks", found)
        if not stacks:
            raise OperationError(
                f"found no stack of blocks in {type(surgery.model).__name__}",
                hint="cut it at a site instead: after: SITE",
            )
        names = [stack["container"] for stack in stacks]
        if self.stack is not None:
            wanted = surgery.site(self.stack).name
            if wanted not in names:
                raise OperationError(f"{wanted} is no stack of blocks", hint=suggest(wanted, names))
            return [stacks[names.index(wanted)]]
        if len(stacks) > 1 and not isinstance(self.keep_blocks, float):
            raise OperationError(
                f"the network has {len(stacks)} stacks of blocks, and which one is meant is not said",
                hint=f"add stack: {' | '.join(names)}, or give a fraction, which thins each of them",
            )
        return list(stacks)

    def _indices(self, stack: dict[str, Any]) -> list[int]:
        count = len(stack["sites"])
        keep = self.keep_blocks
        if isinstance(keep, float):
            return list(range(max(1, ceil(keep * count - 1e-9))))
        positions = list(range(keep)) if isinstance(keep, int) else list(keep or [])
        if max(positions) >= count:
            raise OperationError(f"{stack['container']} has {count} blocks (0 to {count - 1}), not {keep}")
        return positions


def _end_at(surgery: Surgery, selector: str) -> None:
    site = surgery.site(selector)
    if not site.name:
        raise OperationError("the forward ends at the whole network already", hint="name a site inside it")
    parameters = sum(p.numel() for p in surgery.model.parameters())
    shape = surgery.shape(site)
    surgery.cut(site)
    for aux in surgery.role("aux"):  # would run in training, and its result be thrown away
        surgery.remove(aux, optional=True)
    left = sum(p.numel() for p in surgery.model.parameters())
    surgery.note(f"ends at {site}: features {shape}; the forward exits there; {parameters - left:,} parameters less")


def _thin(surgery: Surgery, stack: dict[str, Any], indices: list[int]) -> None:
    container, sites = stack["container"], stack["sites"]
    blocks = [surgery.model.get_submodule(site) for site in sites]
    children = list(surgery.model.get_submodule(container)._modules.values())
    if len(indices) == len(sites) and indices == sorted(indices):
        surgery.note(f"{container} keeps all of its {len(sites)} blocks")
        return
    _refuse_to_lose_shared_tensors(container, blocks, indices)
    _refuse_to_lose_attention(surgery.model, stack, indices)
    before = surgery.recall(f"outputs before thinning {container}", lambda: _outputs(surgery))
    stays = [children.index(blocks[i]) for i in indices]
    # what a container holds beside its blocks (a downsampling layer) stays in its place
    others = [i for i, child in enumerate(children) if child not in blocks]
    surgery.keep_children(container, _merge(stays, others))
    for new, old in enumerate(indices):
        _renumber(blocks[old], old, new)
    _update_configs(surgery.model, container, stack["fields"], len(sites), indices)
    after = surgery.recall(f"outputs after thinning {container}", lambda: _outputs(surgery))
    if before != after:
        raise OperationError(
            f"without those blocks of {container} the outputs change from {before} to {after}",
            hint="keep the block that changes the shape, usually the first of a stage",
        )
    kept = f"the first {len(indices)}" if indices == list(range(len(indices))) else f"{indices}"
    surgery.note(f"{container} keeps {kept} of {len(sites)} blocks, sliced in place")


def _merge(stays: list[int], others: list[int]) -> list[int]:
    """Blocks in the order asked for; a child that is no block stays before, or after, the blocks."""
    return [i for i in others if i < min(stays)] + stays + [i for i in others if i > min(stays)]


def _outputs(surgery: Surgery) -> dict[str, list[int]]:
    try:
        # how many boxes a detector finds depends on its weights
        return {name: list(shape[1:]) for name, shape in surgery.trace().outputs.items()}
    except OperationError as error:
        raise OperationError(
            f"the network no longer runs: {error.message}",
            hint="keep the block that changes the shape, usually the first of a stage",
        ) from error


def _refuse_to_lose_shared_tensors(container: str, blocks: list[nn.Module], indices: list[int]) -> None:
    """T5's first block alone holds the position bias that all of them use."""
    held = [{name for name, _ in block.named_parameters()} for block in blocks]
    common = set.intersection(*held)
    for position, names in enumerate(held):
        alone = names - common
        if position not in indices and alone and all(held[i] == common for i in indices):
            raise OperationError(
                f"block {position} of {container} cannot go: it alone holds {sorted(alone)[0]}",
                hint=f"keep it: keep_blocks: {sorted({position, *indices})}",
            )


def _refuse_to_lose_attention(model: nn.Module, stack: dict[str, Any], indices: list[int]) -> None:
    """Where attention is mixed with other kinds of blocks, the cache takes its length from one that attends."""
    container, count = stack["container"], len(stack["sites"])
    for config in _configs(model, container):
        for kinds in (getattr(config, field, None) for field in KINDS if hasattr(config, "use_cache")):
            if not isinstance(kinds, (list, tuple)) or len(kinds) != count or not isinstance(kinds[0], str):
                continue
            attends = [i for i, kind in enumerate(kinds) if ATTENDS.search(kind)]
            if attends and not set(attends) & set(indices):
                kept = sorted({attends[0], *indices[: max(1, len(indices) - 1)]})
                raise OperationError(
                    f"none of the blocks of {container} that would be left has attention, without which it generates "
                    f"nothing: they are {', '.join(kinds[i] for i in indices)}",
                    hint=f"keep one that has: keep_blocks: {kept}",
                )


def _renumber(block: nn.Module, old: int, new: int) -> None:
    for module in block.modules():
        for attribute in INDEX_ATTRIBUTES:
            if type(value := getattr(module, attribute, None)) is int and value == old:
                setattr(module, attribute, new)


def _update_configs(model: nn.Module, container: str, fields: list[str], count: int, indices: list[int]) -> None:
    """Let every copy of the config that speaks of the blocks say how many there are, and what kind each is.

    Those are the configs of what holds the blocks, and of what is in them: T5's decoder has a copy of its own, in
    which the field that counts the encoder's blocks in the network's counts the decoder's.
    """
    for config in _configs(model, container):
        for path in fields:
            field, _, position = path.partition(".")
            value = getattr(config, field, None)
            if position and isinstance(value, (list, tuple)):
                changed = list(value)
                changed[int(position)] = len(indices)
                setattr(config, field, type(value)(changed))
            elif isinstance(value, (list, tuple)) and len(value) == count:
                setattr(config, field, type(value)(value[i] for i in indices))
            elif isinstance(value, int) and value == count:
                setattr(config, field, len(indices))


def _configs(model: nn.Module, container: str) -> list[Any]:
    """The configs of what holds the blocks, and of what is in them."""
    top = getattr(model, "role_root", "")  # the earlier columns keep theirs
    configs = {}
    for name, module in model.named_modules():
        holds = not name or f"{container}.".startswith(f"{name}.")
        if (holds and f"{name}.".startswith(top)) or f"{name}.".startswith(f"{container}."):
            config = getattr(module, "config", None)
            if config is not None:
                configs[id(config)] = config
    return list(configs.values())
