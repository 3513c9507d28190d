"""Replace every tensor of a transformers network that has the class count.

Detectors and segmenters have it in many places: a score for each decoder layer, for the encoder's proposals, an
embedding of labels for denoising, the class weights of the loss. No list of names would hold for all of them. So the
class is built twice, for different counts: what differs in shape has the count.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.architectures.hf_siblings import NewParts, build_stock
from surgeon.errors import OperationError
from surgeon.families.transformers.tasks import does
from surgeon.operations._shared.labels import set_labels
from surgeon.operations.replace_head.class_rows import copy_rows, shared_classes

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

NUMBERS = (bool, int, float, str, type(None))


def own_class(model: nn.Module) -> type[nn.Module]:
    """Return the class of a network without the mixins of surgery."""
    return next(cls for cls in type(model).__mro__ if not cls.__module__.startswith("surgeon."))


def count_field(model: nn.Module) -> str:
    """Name the setting that counts the outputs: CTC scores characters, all others labels."""
    config: Any = model.config
    names = [cls.__name__ for cls in type(model).__mro__]
    return "vocab_size" if any(does(name, config.model_type, "ctc") for name in names) else "num_labels"


def counted_tensors(cls: Any, config: Any, field: str) -> dict[str, tuple[int, int]]:
    """Find the tensors that have the class count.

    Args:
        cls: The class of the network.
        config: A copy of its config, which is changed.
        field: The setting that counts: ``num_labels``.

    Returns:
        For each tensor, by every name of a tied one, the size of its first dimension, and how much of that is one
        class's.

    Raises:
        ArchitectureError: The class cannot be built with another count.
    """
    before = build_stock(cls, config).state_dict(keep_vars=True)
    count = getattr(config, field)
    _set_count(config, field, count + 1)
    after = build_stock(cls, config).state_dict(keep_vars=True)
    differing = {}
    for name, tensor in before.items():
        changed = after.get(name)
        if changed is not None and changed.shape != tensor.shape:
            differing[name] = (tensor.shape[0], changed.shape[0] - tensor.shape[0])
    return differing


def replace_counted(operation: ReplaceHeadFields, surgery: Surgery) -> bool:
    """Replace all tensors with the class count; return False if the config no longer builds the present network.

    Raises:
        OperationError: The head is of several parts, and the operation describes another.
    """
    model = surgery.model
    config: Any = model.config
    cls, field = own_class(model), count_field(model)
    before = build_stock(cls, copy.deepcopy(config))
    counted = counted_tensors(cls, copy.deepcopy(config), field)
    old_count = getattr(config, field)
    if operation.aux == "keep":
        aux = surgery.role("aux")
        counted = {n: size for n, size in counted.items() if not any(n.startswith(f"{site}.") for site in aux)}
    present, built = model.state_dict(keep_vars=True), before.state_dict(keep_vars=True)
    if any(name not in present or present[name].shape != built[name].shape for name in counted):
        return False
    sites = list(dict.fromkeys(name.rpartition(".")[0] for name in counted))
    if _wants_other_head(operation):
        if len(sites) == 1 or all(site in [*surgery.role("head"), *surgery.role("aux")] for site in sites):
            return False
        raise OperationError(
            f"{cls.__name__} has the class count in {len(sites)} modules ({', '.join(sites[:3])}, …), which only its "
            "own kind of head fits",
            hint="leave out kind, hidden, dropout and pool",
        )
    pairs = _pairs(operation, surgery, old_count)
    if field == "num_labels":
        set_labels(model, operation.classes or 1, operation.problem_type)
    else:
        _set_count(config, field, operation.count)
    after = build_stock(cls, copy.deepcopy(config))
    parts = NewParts(cls, config)
    _follow_settings(model, before, after, set(sites))
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if dtype is not None:
        _cast(after, counted, dtype)
    drawn: set[int] = set()
    for site in sites:
        _put(surgery, parts, site, after.get_submodule(site), operation, pairs, counted, drawn)
    _note(surgery, counted, operation.count)
    return True


def _wants_other_head(operation: ReplaceHeadFields) -> bool:
    return operation.kind != "linear" or bool(operation.hidden) or bool(operation.dropout) or operation.pool != "auto"


def _set_count(config: Any, field: str, number: int) -> None:
    setattr(config, field, number)
    if field == "vocab_size" and (text := getattr(config, "get_text_config", None)) and text() is not config:
        text().vocab_size = number


def _cast(model: nn.Module, names: Iterable[str], dtype: torch.dtype) -> None:
    """Change the dtype of parameters, and keep tied ones tied."""
    cast: dict[int, nn.Parameter] = {}
    for name in names:
        path, _, key = name.rpartition(".")
        table = model.get_submodule(path)._parameters
        old = table.get(key)
        if old is not None and old.is_floating_point() and old.dtype != dtype and id(old) not in cast:
            cast[id(old)] = nn.Parameter(old.to(dtype), requires_grad=old.requires_grad)
        if old is not None:
            table[key] = cast.get(id(old), old)


def _put(
    surgery: Surgery,
    parts: NewParts,
    site: str,
    module: nn.Module,
    operation: ReplaceHeadFields,
    pairs: list[tuple[int, int]] | None,
    counted: Mapping[str, tuple[int, int]],
    drawn: set[int],
) -> None:
    """Put ``module`` at ``site``, but keep the tensors there that do not depend on the class count."""
    old = surgery.model.get_submodule(site)
    if old is module:  # shared with a site that was seen to
        return
    for name, child in old.named_children():
        if name in module._modules:
            module._modules[name] = child
    fresh = {}
    for table, former in ((module._parameters, old._parameters), (module._buffers, old._buffers)):
        for name, tensor in list(table.items()):
            if tensor is None or name in module._non_persistent_buffers_set:
                continue
            before = former.get(name)
            if before is not None and before.shape == tensor.shape and f"{site}.{name}" not in counted:
                table[name] = before  # type: ignore[assignment]
                continue
            if id(tensor) not in drawn:
                fresh[name] = tensor
    drawn.update(map(id, fresh.values()))
    if fresh:
        surgery.draw(fresh, partial(parts.draw, site, sorted(fresh)))
    for name, tensor in fresh.items():
        before = getattr(old, name, None)
        if isinstance(tensor, nn.Parameter) and isinstance(before, torch.Tensor):
            _start(surgery, operation, tensor, before, pairs, counted.get(f"{site}.{name}"))
    surgery.replace(site, module)


def _start(
    surgery: Surgery,
    operation: ReplaceHeadFields,
    tensor: torch.Tensor,
    old: torch.Tensor,
    pairs: list[tuple[int, int]] | None,
    size: tuple[int, int] | None,
) -> None:
    if operation.init == "zeros":
        surgery.derive(tensor, [tensor], torch.zeros_like)
    if operation.init != "rows" or pairs is None or size is None:
        return
    rows, share = size
    if share != 1 or old.shape[1:] != tensor.shape[1:]:
        raise OperationError("init: rows: the classes are not rows of the old head", hint="leave init out")
    extra = tensor.shape[0] - operation.count
    old_count = rows - extra
    all_pairs = [*pairs, *((operation.count + i, old_count + i) for i in range(extra))]
    surgery.derive(tensor, [tensor, old], partial(copy_rows, pairs=tuple(all_pairs), groups=1, block=1))


def _pairs(operation: ReplaceHeadFields, surgery: Surgery, old_count: int) -> list[tuple[int, int]] | None:
    if operation.init != "rows":
        return None
    pairs = shared_classes(operation, surgery, old_count)
    surgery.note(f"starts with the rows of {len(pairs)} of the old head's {old_count} classes")
    return pairs


def _follow_settings(model: nn.Module, before: nn.Module, after: nn.Module, replaced: Collection[str]) -> None:
    """Set the attributes of remaining modules that differ between the old and the new class count."""
    old, new = (dict(tree.named_modules(remove_duplicate=False)) for tree in (before, after))
    for path, module in model.named_modules(remove_duplicate=False):
        if path not in old or path not in new or path in replaced:
            continue
        for name, value in vars(new[path]).items():
            former = vars(old[path]).get(name)
            plain = isinstance(value, NUMBERS) and isinstance(former, NUMBERS)
            if plain and former != value and name not in ("training",) and vars(module).get(name) == former:
                setattr(module, name, value)


def _note(surgery: Surgery, counted: Mapping[str, Any], count: int) -> None:
    if len({name.rpartition(".")[0] for name in counted}) > 1:
        first_names = ", ".join(list(counted)[:3]) + (f" and {len(counted) - 3} more" if len(counted) > 3 else "")
        surgery.note(f"{len(counted)} tensors have the class count, and change with it to {count}: {first_names}")
