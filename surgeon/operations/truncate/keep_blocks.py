"""Remove blocks from a stack (depth pruning), and update everything in the network that depends on their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from surgeon.architectures.same_structure import differing_setting
from surgeon.errors import OperationError
from surgeon.families.registry import configs_in
from surgeon.families.transformers.fields import BLOCK_REFERENCES, INDEX_ATTRIBUTES, MUTABLE
from surgeon.graph.blocks import CONTAINERS
from surgeon.graph.skeleton import build_skeleton

if TYPE_CHECKING:
    import torch
    from torch import nn

    from surgeon.surgery.context import Surgery


@dataclass(frozen=True)
class Thinning:
    """Describe a stack of blocks, and which of them stay.

    Attributes:
        container: The site that contains the blocks.
        sites: The blocks, in executed order.
        fields: The fields of configs that count them, or have an entry for each.
        beside: Lists of which an entry runs after each block, such as XLM's norms.
        indices: The positions of the blocks that stay, in their new order.
    """

    container: str
    sites: list[str]
    fields: list[str]
    beside: list[str]
    indices: list[int]

    @property
    def keeps_all(self) -> bool:
        """Return whether all blocks stay in their order."""
        return self.indices == list(range(len(self.sites)))


def thin(surgery: Surgery, stacks: Sequence[Thinning]) -> None:
    """Slice stacks in place, and update configs.

    Raises:
        OperationError: The network does not run without the other blocks, or returns outputs of other shapes.
    """
    cut = [stack for stack in stacks if not stack.keeps_all]
    for stack in stacks:
        if stack.keeps_all:
            surgery.note(f"{stack.container} keeps all of its {len(stack.sites)} blocks")
    if not cut:
        return
    before = surgery.recall("outputs before", lambda: _outputs(surgery))
    cls = stock_class(surgery.model)
    with surgery.bookkeeping():
        for stack in cut:
            _slice(surgery, stack)
    try:
        after = surgery.recall("outputs after", lambda: _outputs(surgery))
    except OperationError as error:
        raise OperationError(
            f"the network no longer runs: {error.message}",
            hint="keep the block that changes the shape, usually the first of a stage",
        ) from error
    numbers = [(len(stack.sites), len(stack.indices)) for stack in cut]
    if change := changed_output(before, after, numbers):
        raise OperationError(
            f"without those blocks of {' and '.join(stack.container for stack in cut)} the outputs change: {change}",
            hint="keep the blocks that produce this output, or that change the shape (usually the first of a stage)",
        )
    if cls is not None and (reason := surgery.recall("no stock config", lambda: _unlike_stock(surgery, cls, cut))):
        surgery.note(f"no config of {cls.__name__} builds this, so only surgeon.load opens the result: {reason}")


def stock_class(model: nn.Module) -> Any:
    """Get the transformers class of ``model``; None for any other network."""
    return type(model) if type(model).__module__.startswith("transformers.models.") else None


def _unlike_stock(surgery: Surgery, cls: Any, stacks: Sequence[Thinning]) -> str | None:
    """Describe how the blocks differ from those that ``from_pretrained`` of the result would build; None if equal."""
    config = cast("Any", surgery.model).config
    try:
        rebuilt = build_skeleton(lambda: cls(type(config).from_dict(config.to_dict())))
    except Exception as error:  # any error means that the class does not build such a network
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return differing_setting(surgery.model, rebuilt, within=[stack.container for stack in stacks], mutable=MUTABLE)


def _slice(surgery: Surgery, stack: Thinning) -> None:
    container, sites, indices = stack.container, stack.sites, stack.indices
    blocks = [surgery.model.get_submodule(site) for site in sites]
    children = [child for child in surgery.model.get_submodule(container)._modules.values() if child is not None]
    _refuse_to_lose_shared_tensors(container, blocks, indices)
    _refuse_to_lose_attention(surgery, stack)
    _refuse_to_lose_features(surgery, stack)
    _refuse_to_lose_references(surgery, stack, blocks)
    stays = [children.index(blocks[i]) for i in indices]
    # other children of the container (a downsampling layer) stay in their places
    other_children = [i for i, child in enumerate(children) if child not in blocks]
    order = _merge(stays, other_children)
    for name in (container, *stack.beside):
        surgery.keep_children(name, order)
    moved = {old: new for new, old in enumerate(order)}
    for old, new in moved.items():
        _renumber(children[old], [(old, new), *((i, j) for j, i in enumerate(indices) if blocks[i] is children[old])])
    places = {old: new for new, old in enumerate(indices)}
    for (module, name), value in [reference for index in indices for reference in _references(blocks[index])]:
        setattr(module, name, places.get(value, value))
    _slice_parameters(surgery, stack)
    _update_configs(surgery, stack, moved)
    kept_blocks = f"the first {len(indices)}" if indices == list(range(len(indices))) else f"{indices}"
    along = f", and with them {', '.join(stack.beside)}" if stack.beside else ""
    surgery.note(f"{container} keeps {kept_blocks} of {len(sites)} blocks, sliced in place{along}")


def _slice_parameters(surgery: Surgery, stack: Thinning) -> None:
    """Slice parameters with a row for the stem and one for each block, such as a learned sum of hidden states."""
    names = {
        name for config, _ in configs_in(surgery.model, surgery.families) for name in config.fields.block_parameters
    }
    for site, module in list(surgery.model.named_modules()):
        for name in names & module._parameters.keys():
            weight = module._parameters[name]
            if weight is not None and weight.shape[0] == len(stack.sites) + 1:
                rows = [0, *(index + 1 for index in stack.indices)]
                surgery.reshape(site, name, (len(rows), *weight.shape[1:]), partial(rows_of, rows=rows))
                surgery.note(f"{f'{site}.{name}'.lstrip('.')} keeps the weights of the hidden states that are left")


def rows_of(weight: torch.Tensor, *, rows: Sequence[int]) -> torch.Tensor:
    """Take rows of a parameter ``(rows, …)``, in the given order."""
    return weight[list(rows)].clone()


def lists_beside(surgery: Surgery, container: str, excluded: Sequence[str]) -> list[str]:
    """Find the siblings of ``container`` of which an entry runs after each of its blocks.

    Args:
        surgery: Traces the network.
        container: The site that contains the blocks.
        excluded: Sites to leave out.
    """
    parent, _, last = container.rpartition(".")
    length = len(surgery.model.get_submodule(container)._modules)
    names = [
        f"{parent}.{name}".lstrip(".")
        for name, module in surgery.model.get_submodule(parent).named_children()
        if isinstance(module, CONTAINERS) and len(module._modules) == length > 1 and name != last
    ]
    try:
        visits = surgery.trace().visits
    except OperationError:  # without a trace the order is unknown
        return []

    def started(site: str) -> list[int]:
        modules = surgery.model.get_submodule(site)._modules
        return [visits[f"{site}.{name}"].started for name in modules if f"{site}.{name}" in visits]

    block_starts = started(container)

    def alternates(site: str) -> bool:
        starts = started(site)
        if not len(starts) == len(block_starts) == length:
            return False
        order = [start for pair in zip(block_starts, starts, strict=True) for start in pair]
        return order == sorted(order)

    return [name for name in names if name not in excluded and alternates(name)]


def _merge(stays: list[int], other_children: list[int]) -> list[int]:
    """Merge blocks in their new order with the other children, which stay before or after the blocks."""
    return [i for i in other_children if i < min(stays)] + stays + [i for i in other_children if i > min(stays)]


def _outputs(surgery: Surgery) -> dict[str, list[int]]:
    # without the first dimension: how many boxes a detector returns depends on its weights
    return {name: list(shape[1:]) for name, shape in surgery.trace().outputs.items()}


def changed_output(
    before: Mapping[str, list[int]], after: Mapping[str, list[int]], numbers: Sequence[tuple[int, int]]
) -> str | None:
    """Describe a change of the outputs' shapes that does not follow from the numbers of blocks; None if there is none.

    An output may have an entry for each block, or one more (the stem's): in a list, or along a dimension.

    Args:
        before: The shape of each output, by its path: ``hidden_states.0`` is an entry of ``hidden_states``.
        after: The same without the removed blocks.
        numbers: For each stack, the number of blocks before and after.
    """

    def follows(was: int, now: int) -> bool:
        return was == now or any(
            was - count in (0, 1) and was - now == count - kept_count for count, kept_count in numbers
        )

    def shorter(was: int, now: int) -> bool:
        """Return whether a list lost one or two entries for each removed block, of one stack or of several."""
        lost = {0}
        for count, kept_count in numbers:
            lost |= {some + times * (count - kept_count) for some in lost for times in (1, 2)}
        return was - now in lost

    def change(was: Any, now: Any, name: str) -> str | None:
        if not (isinstance(was, dict) and isinstance(now, dict)):
            shapes = isinstance(was, list) and isinstance(now, list) and len(was) == len(now)
            return None if shapes and all(map(follows, was, now)) else f"{name} from {was} to {now}"
        if was.keys() != now.keys() and all(key.isdigit() for key in (*was, *now)):
            # an entry that is None, or is also elsewhere in the outputs, is not among the keys
            if not shorter(_length(was), _length(now)):
                return f"{name} from {len(was)} entries to {len(now)}"
            entries = [[change(old, new, f"{name}.{key}") for old in was.values()] for key, new in now.items()]
            return next((reasons[-1] for reasons in entries if all(reasons)), None)
        for key in sorted(was.keys() | now.keys()):
            place = f"{name}.{key}".lstrip(".")
            if key not in now and isinstance(was[key], dict) and shorter(_length(was[key]), 0):
                continue  # the list lost all of its entries
            if key not in was or key not in now:
                return f"{place} is {'new' if key in now else 'missing'}"
            if reason := change(was[key], now[key], place):
                return reason
        return None

    return change(_tree(before), _tree(after), "")


def _length(entries: Mapping[str, Any]) -> int:
    """Get the length of a list from the greatest number among its keys."""
    return max((int(key) + 1 if key.isdigit() else 0 for key in entries), default=0)


def _tree(outputs: Mapping[str, list[int]]) -> dict[str, Any]:
    """Nest outputs by the parts of their paths."""
    tree: dict[str, Any] = {}
    for name, shape in outputs.items():
        *way, last = name.split(".")
        place = tree
        for step in way:
            place = place.setdefault(step, {})
        place[last] = shape
    return tree


def _refuse_to_lose_shared_tensors(container: str, blocks: list[nn.Module], indices: list[int]) -> None:
    """Refuse to remove a block with parameters that the others use: T5's first block has the position bias of all."""
    parameters = [{name for name, _ in block.named_parameters()} for block in blocks]
    common = set.intersection(*parameters)
    for position, names in enumerate(parameters):
        alone = names - common
        if position not in indices and alone and all(parameters[i] == common for i in indices):
            raise OperationError(
                f"block {position} of {container} cannot be removed: only it has {sorted(alone)[0]}",
                hint=f"keep it: keep_blocks: {sorted({position, *indices})}",
            )


def _refuse_to_lose_attention(surgery: Surgery, stack: Thinning) -> None:
    attentive = with_attention(surgery, stack.container, len(stack.sites), stack.indices)
    if attentive != stack.indices:
        raise OperationError(
            f"none of the blocks of {stack.container} that would be left has attention, and generation needs one",
            hint=f"keep one with attention: keep_blocks: {attentive}",
        )


def _refuse_to_lose_features(surgery: Surgery, stack: Thinning) -> None:
    """Refuse to remove blocks whose features other parts read: Qwen3-VL's text model would silently get fewer."""
    for config, _ in configs_in(surgery.model, surgery.families, around=stack.container):
        for field, positions in config.feature_blocks(stack.container, len(stack.sites)).items():
            if removed := [position for position in positions if position not in stack.indices]:
                raise OperationError(
                    f"block {removed[0]} of {stack.container} cannot be removed: features are taken from it ({field})",
                    hint=f"keep it: keep_blocks: {sorted({*removed, *stack.indices})}, stack: {stack.container}",
                )


def _refuse_to_lose_references(surgery: Surgery, stack: Thinning, blocks: Sequence[nn.Module]) -> None:
    """Refuse to remove blocks whose keys and values later blocks read, as in Gemma 3n."""
    read = {index: value for index in stack.indices for _, value in _references(blocks[index])}
    for config, _ in configs_in(surgery.model, surgery.families, around=stack.container):
        read |= config.read_blocks(stack.container, len(blocks))
    for index, value in read.items():
        if index in stack.indices and 0 <= value < len(blocks) and value not in stack.indices:
            raise OperationError(
                f"block {value} of {stack.container} cannot be removed: block {index} reads its keys and values",
                hint=f"keep it: keep_blocks: {sorted({value, *stack.indices})}",
            )


def _references(block: nn.Module) -> list[tuple[tuple[nn.Module, str], int]]:
    """List the attributes in a block that hold the position of another block, with the positions."""
    values = [(module, name, getattr(module, name, None)) for module in block.modules() for name in BLOCK_REFERENCES]
    return [((module, name), value) for module, name, value in values if type(value) is int]


def with_attention(surgery: Surgery, container: str, count: int, indices: list[int]) -> list[int]:
    """Return ``indices``, with a block with attention in place of the last one if none of them has attention.

    In a hybrid network, the decoder's cache takes its length from a block with attention. If the config computes the
    kinds of blocks (Jamba's), keep the first blocks up to one with attention, so that the kinds stay right.
    """
    for config, _ in configs_in(surgery.model, surgery.families, around=container):
        attends = config.attending(container, count)
        if attends and not set(attends) & set(indices):
            if config.computes_kinds(container):
                return list(range(attends[0] + 1))
            return sorted({attends[0], *indices[: max(1, len(indices) - 1)]})
    return indices


def _renumber(child: nn.Module, moves: list[tuple[int, int]]) -> None:
    """Give a child of a container its new position: among all the children, or among the blocks."""
    for module in child.modules():
        for attribute in INDEX_ATTRIBUTES:
            value = getattr(module, attribute, None)
            places = [new for old, new in moves if type(value) is int and value == old]
            if places:
                setattr(module, attribute, places[0])


def _update_configs(surgery: Surgery, stack: Thinning, moved: Mapping[int, int]) -> None:
    """Update the number and the kinds of blocks in every config that describes them.

    These are the configs of the modules around the blocks, and of those in them. T5's decoder has its own copy, in
    which the field that counts the encoder's blocks in the network's config counts the decoder's. Attributes that
    modules copied from their config are updated too.
    """
    for config, modules in configs_in(surgery.model, surgery.families, around=stack.container):
        changes = config.keep_blocks(stack.container, len(stack.sites), stack.indices, fields=stack.fields, moved=moved)
        for field, (old, new) in changes.items():
            # a list with these entries comes from the config; an equal number may be a coincidence
            for module in surgery.model.modules() if isinstance(old, list) else modules:
                if type(copied := vars(module).get(field)) is type(old) and copied == old:
                    setattr(module, field, new)
