"""Remove blocks from a stack (depth pruning), and correct what else in the network depends on their number."""

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
    """A stack of blocks, and which of them stay.

    Attributes:
        container: The site that holds the blocks.
        sites: The blocks, in executed order.
        fields: The fields of configs that count them, or have an entry for each.
        beside: Lists that run alternately with the container, an entry after each block: XLM's norms.
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
    before = surgery.recall("outputs before", lambda: _outputs(surgery))
    cls = stock_class(surgery.model)
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
            hint="keep the blocks that this comes from, or that change the shape (usually the first of a stage)",
        )
    if cls is not None and (reason := surgery.recall("no stock config", lambda: _unlike_stock(surgery, cls, cut))):
        surgery.note(f"no config of {cls.__name__} builds this, so that only surgeon.load opens the result: {reason}")


def stock_class(model: nn.Module) -> Any:
    """The class of transformers that ``model`` is built by; None for anything else."""
    return type(model) if type(model).__module__.startswith("transformers.models.") else None


def _unlike_stock(surgery: Surgery, cls: Any, stacks: Sequence[Thinning]) -> str | None:
    """Say how the blocks differ from those that ``from_pretrained`` of the result would build; None if they agree."""
    config = cast("Any", surgery.model).config
    try:
        rebuilt = build_skeleton(lambda: cls(type(config).from_dict(config.to_dict())))
    except Exception as error:  # whatever the class raises: it does not build such a network
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
    # what a container holds beside its blocks (a downsampling layer) stays in its place
    others = [i for i, child in enumerate(children) if child not in blocks]
    order = _merge(stays, others)
    for name in (container, *stack.beside):
        surgery.keep_children(name, order)
    moved = {old: new for new, old in enumerate(order)}
    for old, new in moved.items():
        _renumber(children[old], [(old, new), *((i, j) for j, i in enumerate(indices) if blocks[i] is children[old])])
    places = {old: new for new, old in enumerate(indices)}
    for (module, name), value in [found for index in indices for found in _references(blocks[index])]:
        setattr(module, name, places.get(value, value))
    _slice_parameters(surgery, stack)
    _update_configs(surgery, stack, moved)
    kept = f"the first {len(indices)}" if indices == list(range(len(indices))) else f"{indices}"
    along = f", and with them {', '.join(stack.beside)}" if stack.beside else ""
    surgery.note(f"{container} keeps {kept} of {len(sites)} blocks, sliced in place{along}")


def _slice_parameters(surgery: Surgery, stack: Thinning) -> None:
    """Slice the parameters that have a row for each block after one for the stem: a learned sum of hidden states."""
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
    """Some rows of a parameter ``(rows, …)``, in the order given."""
    return weight[list(rows)].clone()


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

    def shorter(was: int, now: int) -> bool:
        """Whether a list lost an entry, or two, for each block that went; of one stack or of several."""
        lost = {0}
        for count, kept in numbers:
            lost |= {some + times * (count - kept) for some in lost for times in (1, 2)}
        return was - now in lost

    def change(was: Any, now: Any, name: str) -> str | None:
        if not (isinstance(was, dict) and isinstance(now, dict)):
            shapes = isinstance(was, list) and isinstance(now, list) and len(was) == len(now)
            return None if shapes and all(map(follows, was, now)) else f"{name} from {was} to {now}"
        if was.keys() != now.keys() and all(key.isdigit() for key in (*was, *now)):
            # an entry that is None, or stands elsewhere in the outputs too, is not among the keys
            if not shorter(_length(was), _length(now)):
                return f"{name} from {len(was)} entries to {len(now)}"
            entries = [[change(old, new, f"{name}.{key}") for old in was.values()] for key, new in now.items()]
            return next((reasons[-1] for reasons in entries if all(reasons)), None)
        for key in sorted(was.keys() | now.keys()):
            place = f"{name}.{key}".lstrip(".")
            if key not in now and isinstance(was[key], dict) and shorter(_length(was[key]), 0):
                continue  # a list that has lost all of its entries
            if key not in was or key not in now:
                return f"{place} is {'new' if key in now else 'gone'}"
            if reason := change(was[key], now[key], place):
                return reason
        return None

    return change(_tree(before), _tree(after), "")


def _length(entries: Mapping[str, Any]) -> int:
    """How long a list is, by the greatest number among its keys."""
    return max((int(key) + 1 if key.isdigit() else 0 for key in entries), default=0)


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


def _refuse_to_lose_attention(surgery: Surgery, stack: Thinning) -> None:
    kept = with_attention(surgery, stack.container, len(stack.sites), stack.indices)
    if kept != stack.indices:
        raise OperationError(
            f"none of the blocks of {stack.container} that would be left has attention, without which it generates "
            "nothing",
            hint=f"keep one that has: keep_blocks: {kept}",
        )


def _refuse_to_lose_features(surgery: Surgery, stack: Thinning) -> None:
    """Qwen3-VL's text model reads features from some blocks of the tower, and would silently go without them."""
    for config, _ in configs_in(surgery.model, surgery.families, around=stack.container):
        for field, positions in config.feature_blocks(stack.container, len(stack.sites)).items():
            if gone := [position for position in positions if position not in stack.indices]:
                raise OperationError(
                    f"block {gone[0]} of {stack.container} cannot go: features are taken from it ({field})",
                    hint=f"keep it: keep_blocks: {sorted({*gone, *stack.indices})}, stack: {stack.container}",
                )


def _refuse_to_lose_references(surgery: Surgery, stack: Thinning, blocks: Sequence[nn.Module]) -> None:
    """The last layers of Gemma 3n read keys and values of an earlier one."""
    read = {index: value for index in stack.indices for _, value in _references(blocks[index])}
    for config, _ in configs_in(surgery.model, surgery.families, around=stack.container):
        read |= config.read_blocks(stack.container, len(blocks))
    for index, value in read.items():
        if index in stack.indices and 0 <= value < len(blocks) and value not in stack.indices:
            raise OperationError(
                f"block {value} of {stack.container} cannot go: block {index} reads its keys and values",
                hint=f"keep it: keep_blocks: {sorted({value, *stack.indices})}",
            )


def _references(block: nn.Module) -> list[tuple[tuple[nn.Module, str], int]]:
    """The attributes in a block that hold the position of another one, with the positions."""
    held = [(module, name, getattr(module, name, None)) for module in block.modules() for name in BLOCK_REFERENCES]
    return [((module, name), value) for module, name, value in held if type(value) is int]


def with_attention(surgery: Surgery, container: str, count: int, indices: list[int]) -> list[int]:
    """The blocks at ``indices``, with one that attends in place of the last of them if none of them does.

    Where attention is mixed with other kinds of blocks, a decoder's cache takes its length from one that attends. If
    the config works out which those are (Jamba's), only the first blocks, up to one that attends, are as it says.
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
    """Let every copy of the config that speaks of the blocks say how many there are, and of what kind each is.

    Those are the configs of what holds the blocks, and of what is in them: T5's decoder has a copy of its own, in
    which the field that counts the encoder's blocks in the network's counts the decoder's. Attributes that modules
    copied from their config change with it.
    """
    for config, modules in configs_in(surgery.model, surgery.families, around=stack.container):
        changes = config.keep_blocks(stack.container, len(stack.sites), stack.indices, fields=stack.fields, moved=moved)
        for field, (old, new) in changes.items():
            # a list of as many entries is the config's; a number might be another's that happens to be equal
            for module in surgery.model.modules() if isinstance(old, list) else modules:
                if type(copied := vars(module).get(field)) is type(old) and copied == old:
                    setattr(module, field, new)
