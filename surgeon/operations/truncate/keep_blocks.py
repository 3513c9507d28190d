"""Depth pruning: which blocks a stack can do without, and what else in the network speaks of their number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from surgeon.errors import OperationError
from surgeon.graph.blocks import CONTAINERS
from surgeon.interfaces.composite import root_of

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery

ATTENDS = re.compile(r"^(?!linear).*attention|^hybrid$")
"""The kinds of blocks, as transformers calls them, whose caches know how long the text is."""
KINDS = ("layer_types", "layers_block_type")
"""Where a config says of what kind each block is, be it a setting or worked out from others."""
POSITIONS = re.compile(
    r"^(hybrid_layer_ids|attn_layer_indices|(global|full|window|residual)\w*_(idxs|indexes|indices)"
    r"|(mlp_only|moe|cross_attention)_layers)$"
)
"""Where a config says by their positions which blocks are of some kind."""
TAKEN_FROM = re.compile(r"^deepstack\w*_indexes$")
"""Where a config says which blocks other parts take features from, each with a layer for its own."""
INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "block_idx", "idx")
"""Where a block keeps its own position: a decoder's cache is addressed by it."""


@dataclass(frozen=True)
class Thinning:
    """A stack of blocks, and which of them stay.

    Attributes:
        container: The site that holds the blocks.
        sites: The blocks, in executed order.
        fields: The settings of configs that count them, or have an entry for each.
        beside: Lists that run in step with the container, an entry after each block: XLM's norms.
        indices: The positions among the blocks of those that stay, in their new order.
    """

    container: str
    sites: list[str]
    fields: list[str]
    beside: list[str]
    indices: list[int]

    @property
    def keeps_all(self) -> bool:
        """Whether it changes nothing."""
        return self.indices == list(range(len(self.sites)))


def thin(surgery: Surgery, stacks: Sequence[Thinning]) -> None:
    """Slice stacks in place, and make configs say so.

    Raises:
        OperationError: The network cannot do without the other blocks, or would give other outputs.
    """
    cut = [stack for stack in stacks if not stack.keeps_all]
    for stack in stacks:
        if stack.keeps_all:
            surgery.note(f"{stack.container} keeps all of its {len(stack.sites)} blocks")
    if not cut:
        return
    before = surgery.recall("outputs before thinning", lambda: _outputs(surgery))
    for stack in cut:
        _slice(surgery, stack)
    try:
        after = surgery.recall("outputs after thinning", lambda: _outputs(surgery))
    except OperationError as error:
        raise OperationError(
            f"the network no longer runs: {error.message}",
            hint="keep the block that changes the shape, usually the first of a stage",
        ) from error
    numbers = [(len(stack.sites), len(stack.indices)) for stack in cut]
    if change := changed_output(before, after, numbers):
        raise OperationError(
            f"without those blocks of {' and '.join(stack.container for stack in cut)} the outputs change: {change}",
            hint="keep the blocks that this comes from, or that change the shape (usually the first of a stage)",
        )


def _slice(surgery: Surgery, stack: Thinning) -> None:
    container, sites, indices = stack.container, stack.sites, stack.indices
    blocks = [surgery.model.get_submodule(site) for site in sites]
    children = [child for child in surgery.model.get_submodule(container)._modules.values() if child is not None]
    _refuse_to_lose_shared_tensors(container, blocks, indices)
    _refuse_to_lose_attention(surgery.model, stack)
    _refuse_to_lose_features(surgery.model, stack)
    stays = [children.index(blocks[i]) for i in indices]
    # what a container holds beside its blocks (a downsampling layer) stays in its place
    others = [i for i, child in enumerate(children) if child not in blocks]
    order = _merge(stays, others)
    for name in (container, *stack.beside):
        surgery.keep_children(name, order)
    moved = {old: new for new, old in enumerate(order)}
    for old, new in moved.items():
        _renumber(children[old], [(old, new), *((i, j) for j, i in enumerate(indices) if blocks[i] is children[old])])
    _update_configs(surgery.model, stack, moved)
    kept = f"the first {len(indices)}" if indices == list(range(len(indices))) else f"{indices}"
    along = f", and with them {', '.join(stack.beside)}" if stack.beside else ""
    surgery.note(f"{container} keeps {kept} of {len(sites)} blocks, sliced in place{along}")


def lists_beside(surgery: Surgery, container: str, others: Sequence[str]) -> list[str]:
    """The lists among ``container``'s neighbours that run in step with it: an entry after each of its blocks.

    Args:
        surgery: What knows how the network ran.
        container: The site that holds the blocks.
        others: Sites that are no such lists.
    """
    parent, _, own = container.rpartition(".")
    length = len(surgery.model.get_submodule(container)._modules)
    names = [
        f"{parent}.{name}".lstrip(".")
        for name, module in surgery.model.get_submodule(parent).named_children()
        if isinstance(module, CONTAINERS) and len(module._modules) == length > 1 and name != own
    ]
    try:
        visits = surgery.trace().visits
    except OperationError:  # then nothing is known of the order
        return []

    def started(site: str) -> list[int]:
        modules = surgery.model.get_submodule(site)._modules
        return [visits[f"{site}.{name}"].started for name in modules if f"{site}.{name}" in visits]

    mine = started(container)

    def in_step(site: str) -> bool:
        theirs = started(site)
        if not len(theirs) == len(mine) == length:
            return False
        turns = [each for pair in zip(mine, theirs, strict=True) for each in pair]
        return turns == sorted(turns)

    return [name for name in names if name not in others and in_step(name)]


def _merge(stays: list[int], others: list[int]) -> list[int]:
    """Blocks in the order asked for; a child that is no block stays before, or after, the blocks."""
    return [i for i in others if i < min(stays)] + stays + [i for i in others if i > min(stays)]


def _outputs(surgery: Surgery) -> dict[str, list[int]]:
    # how many boxes a detector finds depends on its weights
    return {name: list(shape[1:]) for name, shape in surgery.trace().outputs.items()}


def changed_output(
    before: Mapping[str, list[int]], after: Mapping[str, list[int]], numbers: Sequence[tuple[int, int]]
) -> str | None:
    """What of the outputs' shapes changes beyond what follows from the numbers of blocks, if anything does.

    An output may have an entry for each block, or one more (the stem's): in a list, or along a dimension.

    Args:
        before: The shape of each output, by its place: ``hidden_states.0`` is an entry of ``hidden_states``.
        after: The same without some blocks.
        numbers: For each stack how many blocks it had, and has.
    """

    def follows(was: int, now: int) -> bool:
        return was == now or any(was - count in (0, 1) and was - now == count - kept for count, kept in numbers)

    def change(was: Any, now: Any, name: str) -> str | None:
        if not (isinstance(was, dict) and isinstance(now, dict)):
            shapes = isinstance(was, list) and isinstance(now, list) and len(was) == len(now)
            return None if shapes and all(map(follows, was, now)) else f"{name} from {was} to {now}"
        if was.keys() != now.keys() and all(key.isdigit() for key in (*was, *now)):
            # an entry that is None, or stands elsewhere in the outputs too, is not among the keys
            if not follows(max(map(int, was)) + 1, max(map(int, now)) + 1):
                return f"{name} from {len(was)} entries to {len(now)}"
            each = [[change(old, new, f"{name}.{key}") for old in was.values()] for key, new in now.items()]
            return next((reasons[-1] for reasons in each if all(reasons)), None)
        for key in sorted(was.keys() | now.keys()):
            place = f"{name}.{key}".lstrip(".")
            if key not in was or key not in now:
                return f"{place} is {'new' if key in now else 'gone'}"
            if found := change(was[key], now[key], place):
                return found
        return None

    return change(_tree(before), _tree(after), "")


def _tree(outputs: Mapping[str, list[int]]) -> dict[str, Any]:
    """Outputs as they are nested."""
    tree: dict[str, Any] = {}
    for name, shape in outputs.items():
        *way, last = name.split(".")
        place = tree
        for step in way:
            place = place.setdefault(step, {})
        place[last] = shape
    return tree


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


def _refuse_to_lose_attention(model: nn.Module, stack: Thinning) -> None:
    kept = with_attention(model, stack.container, len(stack.sites), stack.indices)
    if kept != stack.indices:
        raise OperationError(
            f"none of the blocks of {stack.container} that would be left has attention, without which it generates "
            "nothing",
            hint=f"keep one that has: keep_blocks: {kept}",
        )


def _refuse_to_lose_features(model: nn.Module, stack: Thinning) -> None:
    """Qwen3-VL's text model is fed from some blocks of the tower, and would go without in silence."""
    for config, _ in _configs(model, stack.container):
        for field, value in vars(config).items():
            if not TAKEN_FROM.search(field) or not isinstance(value, (list, tuple)):
                continue
            gone = [i for i in value if i < len(stack.sites) and i not in stack.indices]
            if gone:
                raise OperationError(
                    f"block {gone[0]} of {stack.container} cannot go: features are taken from it ({field})",
                    hint=f"keep it: keep_blocks: {sorted({*gone, *stack.indices})}, stack: {stack.container}",
                )


def with_attention(model: nn.Module, container: str, count: int, indices: list[int]) -> list[int]:
    """The blocks at ``indices``, with one that attends in place of the last of them if none of them does.

    Where attention is mixed with other kinds of blocks, a decoder's cache takes its length from one that attends. If
    the config works out which those are (Jamba's), only the first blocks, up to one that attends, are as it says.
    """
    for config, _ in _configs(model, container):
        attends = [i for i, kind in enumerate(_kinds(config, count)) if ATTENDS.search(kind)]
        if attends and not set(attends) & set(indices):
            if not vars(config).keys() & set(KINDS):
                return list(range(attends[0] + 1))
            return sorted({attends[0], *indices[: max(1, len(indices) - 1)]})
    return indices


def _renumber(child: nn.Module, moves: list[tuple[int, int]]) -> None:
    """Let a child of a container know its place, if it does: among all the children, or among the blocks."""
    for module in child.modules():
        for attribute in INDEX_ATTRIBUTES:
            value = getattr(module, attribute, None)
            places = [new for old, new in moves if type(value) is int and value == old]
            if places:
                setattr(module, attribute, places[0])


def _update_configs(model: nn.Module, stack: Thinning, moved: Mapping[int, int]) -> None:
    """Let every copy of the config that speaks of the blocks say how many there are, and of what kind each is.

    Those are the configs of what holds the blocks, and of what is in them: T5's decoder has a copy of its own, in
    which the field that counts the encoder's blocks in the network's counts the decoder's. What a module took over
    from its config follows.
    """
    for config, modules in _configs(model, stack.container):
        kinds = _kinds(config, len(stack.sites))
        for field, value in _changes(config, stack, moved).items():
            was = getattr(config, field)
            setattr(config, field, value)
            for module in modules:
                if type(own := vars(module).get(field)) is type(was) and own == was:
                    setattr(module, field, value)
        wanted = [kinds[i] for i in stack.indices if kinds]
        left = _kinds(config, len(stack.indices))
        if kinds and left and left != wanted:
            raise OperationError(
                f"{type(config).__name__} works out of what kind each block is, and would have {', '.join(left)} where "
                f"those that are left of {stack.container} are {', '.join(wanted)}",
                hint=f"keep the first ones: keep_blocks: {max(len(wanted), _first_that_attends(kinds) + 1)}",
            )


def _first_that_attends(kinds: Sequence[str]) -> int:
    return next((i for i, kind in enumerate(kinds) if ATTENDS.search(kind)), 0)


def _kinds(config: Any, count: int) -> list[str]:
    """Of what kind each of ``count`` blocks is, where the config of a decoder says so."""
    for kinds in (getattr(config, field, None) for field in KINDS if hasattr(config, "use_cache")):
        if isinstance(kinds, (list, tuple)) and len(kinds) == count and all(isinstance(kind, str) for kind in kinds):
            return list(kinds)
    return []


def _changes(config: Any, stack: Thinning, moved: Mapping[int, int]) -> dict[str, Any]:
    """The settings that speak of the blocks, with what they have to say now."""
    count, indices = len(stack.sites), stack.indices
    changes: dict[str, Any] = {}
    for path in stack.fields:
        field, _, position = path.partition(".")
        value = changes.get(field, getattr(config, field, None))
        if position and isinstance(value, (list, tuple)):
            lengths = list(value)
            lengths[int(position)] = len(indices)
            changes[field] = type(value)(lengths)
        elif isinstance(value, (list, tuple)) and len(value) == count:
            changes[field] = type(value)(value[i] for i in indices)
        elif isinstance(value, int) and value == count:
            changes[field] = len(indices)
    for field, value in vars(config).items():
        named = POSITIONS.search(field) or TAKEN_FROM.search(field)
        if named and field not in changes and isinstance(value, (list, tuple)):
            changes[field] = type(value)(moved[old] for old in value if old in moved)
    return changes


def _configs(model: nn.Module, container: str) -> list[tuple[Any, list[nn.Module]]]:
    """The configs of what holds the blocks, and of what is in them, with those whose config each is."""
    top = root_of(model)  # the other parts of a composite keep theirs
    configs: dict[int, tuple[Any, list[nn.Module]]] = {}
    for name, module in model.named_modules():
        holds = not name or f"{container}.".startswith(f"{name}.")
        if (holds and f"{name}.".startswith(top)) or f"{name}.".startswith(f"{container}."):
            config = getattr(module, "config", None)
            if hasattr(config, "__dict__"):
                configs.setdefault(id(config), (config, []))[1].append(module)
    return list(configs.values())
