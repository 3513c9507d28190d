"""Move the trunk of a transformers network into the class for another task.

The other class is built without weights, and modules of the old network replace its own. They are the same objects, so
their values stay, and so do the changes of earlier operations. Tensors that only the new class has (a pooler, a head)
are new; those that only the old one has are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.architectures.hf_siblings import NewParts, build_stock
from surgeon.errors import OperationError
from surgeon.families.transformers.tasks import COUNTED, READS_BACK
from surgeon.graph.tensors import aliases_of, tensors_of
from surgeon.operations.replace_head.class_counts import counted_tensors
from surgeon.operations.replace_head.sibling_config import choose_features, pad, set_up, turn

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

NEW_SHARE = 0.1
"""The largest share of the new class's trunk that may be new: a pooler is less, a missing decoder is more."""
NEW_TENSORS = 6
"""The number of tensors that may be new in a small trunk, whatever their share."""


@dataclass
class Fitting:
    """Maps modules and tensors of the old network to their places in the new one.

    Attributes:
        modules: The address in the new network of each module that moves as a whole → its address in the old one.
        tensors: The name of each further tensor that moves → its name in the old one.
        new: The tensors that are new.
        lacking: Those of ``new`` that belong to the trunk.
    """

    modules: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


def unfit(operation: ReplaceHeadFields, model: nn.Module, cls: Any) -> str:
    """Say why a network cannot become ``cls``; empty if it can.

    Raises:
        ArchitectureError: The class cannot be built from the network's config.
    """
    config = copy.deepcopy(model.config)
    shell = copy.copy(model)  # the same modules, with a copied config that may change
    shell.config = config
    set_up(operation, shell)
    turn(operation, config)
    choose_features(cls, config)
    target = build_stock(cls, config)
    counted = _not_to_keep(operation, cls, config)
    if operation.classes is not None and not counted:
        return f"{cls.__name__} has no layer with an output for each class"
    fitting = _fit(model, target, counted, base=operation.task == "base")
    trunk = [name for name in dict(tensors_of(target)) if name not in fitting.new] + fitting.lacking
    if len(fitting.lacking) > max(NEW_SHARE * len(trunk), NEW_TENSORS):
        return (
            f"{cls.__name__} would have a trunk of which this network lacks {len(fitting.lacking)} of {len(trunk)} "
            f"tensors ({', '.join(fitting.lacking[:2])}, …)"
        )
    blocks = [name for name in fitting.lacking if _is_in_a_list_of(name, model, target)]
    if blocks:
        return f"{cls.__name__}, built from this config, has {blocks[0]}, which this network lacks"
    hooked = [site for site in _dissolved(model, fitting) if _has_hooks(model.get_submodule(site))]
    if hooked:
        place = hooked[0] or "the output"
        return f"an earlier operation put something at {place}, for which {cls.__name__} has no place"
    return ""


def become(operation: ReplaceHeadFields, surgery: Surgery, cls: Any) -> None:
    """Turn the network into ``cls`` and keep its trunk.

    Raises:
        OperationError: A tensor or module of an earlier operation would be lost.
    """
    model = surgery.model
    config: Any = model.config
    old_class = type(model).__name__
    keep = _not_to_keep(operation, cls, copy.deepcopy(config))
    set_up(operation, model)
    pad(surgery, cls, config)
    if note := turn(operation, config):
        surgery.note(note)
    if note := choose_features(cls, config):
        surgery.note(note)
    target = build_stock(cls, config)
    fitting = _fit(model, target, keep, base=operation.task == "base")
    parts = NewParts(cls, config)
    dropped = _dropped(model, fitting)
    tensors = dict(tensors_of(model))
    lost = [name for name in dropped if surgery.is_made(tensors[name])]
    if lost:
        raise OperationError(
            f"{cls.__name__} has no place for {lost[0]}, which an earlier operation made",
            hint="put replace_head before that operation, or say task: graft",
        )
    _move(surgery, model, target, fitting)
    _draw(surgery, target, fitting, parts, operation)
    target.train(model.training)
    surgery.wrap(target)
    total = len(dict(tensors_of(target)))
    kept_count = total - len(fitting.new)
    surgery.note(f"{old_class} becomes {cls.__name__}, a stock class: {kept_count} of its {total} tensors are kept")
    if fitting.new:
        surgery.note(f"new: {', '.join(_sites(target, fitting.new))}")
    if dropped:
        surgery.note(f"left out: {', '.join(_sites(model, dropped))}")


def _not_to_keep(operation: ReplaceHeadFields, cls: Any, config: Any) -> set[str] | None:
    """Name the tensors that are to be new although the old network has them; None keeps heads too."""
    if operation.task not in (*COUNTED, "auto"):
        return None
    choose_features(cls, config)
    return set(counted_tensors(cls, config, "num_labels"))


def _is_in_a_list_of(name: str, model: nn.Module, target: nn.Module) -> bool:
    """Return whether a tensor belongs to an entry, such as a block, of a list that the old network has too."""
    parts = name.split(".")
    sites = {site for site, _ in model.named_modules()}
    lists = [".".join(parts[:i]) for i, part in enumerate(parts) if part.isdigit()]
    return any(site in sites for path in lists for site in _old_names(path, model, target))


# ---- what goes where


def _trunk(model: nn.Module, other: nn.Module) -> str:
    """Return the address of the base model; empty if the network itself is one.

    Some classes, such as Llama4ForCausalLM, name a base model that they do not have: it is the part of the ``other``
    network's class then.
    """
    prefix: Any = getattr(model, "base_model_prefix", "")
    if prefix and prefix in model._modules:
        return str(prefix)
    return next((name for name, part in model.named_modules() if name and type(part) is type(other)), "")


def _old_names(name: str, model: nn.Module, target: nn.Module) -> list[str]:
    """Return the possible names in the old network of a tensor or module of the new one."""
    old_trunk, new_trunk = _trunk(model, target), _trunk(target, model)
    inside = name.removeprefix(f"{new_trunk}.") if new_trunk else name
    if name == new_trunk:
        return [old_trunk]
    names = [f"{old_trunk}.{inside}" if old_trunk else inside, name, inside]
    # RF-DETR's segmenter holds a whole detector, whose trunk has the same name inside
    names += [inside.removeprefix(f"{new_trunk}.")] if new_trunk else []
    names += [f"{old_trunk}.{old_trunk}.{inside}"] if old_trunk else []
    return list(dict.fromkeys(filter(None, names)))


def _fit(model: nn.Module, target: nn.Module, not_to_keep: set[str] | None, *, base: bool) -> Fitting:
    """Find the place of every tensor of the new network, which may be a ``base`` without a head, in the old one."""
    fitting = Fitting()
    new = dict(tensors_of(target))
    old_tensors = model.state_dict(keep_vars=True)
    trunk = _trunk(target, model)
    names: dict[str, str] = {}
    twins: dict[int, list[str]] = {}
    for name, tensor in target.state_dict(keep_vars=True).items():
        twins.setdefault(id(tensor), []).append(name)
    for name, tensor in new.items():
        # A tied tensor may be named after the head first, which the old network lacks.
        places = [
            twin
            for twin in twins.get(id(tensor), [name])
            if not_to_keep is None or (twin not in not_to_keep and (not trunk or twin.startswith(f"{trunk}.")))
        ]
        candidates = [n for place in places for n in _old_names(place, model, target) if n in old_tensors]
        match = next((n for n in candidates if old_tensors[n].shape == tensor.shape), None)
        if match is not None:
            names[name] = match
    _fit_modules(model, target, names, fitting)
    fitting.new = [name for name in new if name not in names]
    counted = not_to_keep or ()  # new because of their count, not because the file lacks them
    all_trunk = base or not names
    fitting.lacking = [
        name
        for name in fitting.new
        if name not in counted and (all_trunk or (name.startswith(f"{trunk}.") if trunk else not_to_keep is not None))
    ]
    if not trunk and not all_trunk:  # only the old network shows which are a head's hidden layers
        tops = {name.split(".")[0] for name in names}
        fitting.lacking = [name for name in fitting.lacking if name.split(".")[0] in tops]
    return fitting


def _fit_modules(model: nn.Module, target: nn.Module, names: Mapping[str, str], fitting: Fitting) -> None:
    """Move modules as a whole if all their tensors move, else descend into them."""
    modules = dict(model.named_modules(remove_duplicate=False))
    aliases = aliases_of(target)
    root = _trunk(target, model)

    def visit(module: nn.Module, path: str) -> None:
        inside = [f"{path}.{name}".lstrip(".") for name, _ in tensors_of(module)]
        for site in _old_names(path, model, target) if path else []:
            candidate = modules.get(site)
            if candidate is None or path == root:
                continue
            goes = [names.get(aliases.get(n, n)) == f"{site}.{n[len(path) + 1 :]}" for n in inside]
            same = isinstance(candidate, type(module)) or not list(module.children())
            same = same and not _is_hung_into(candidate, module)
            if isinstance(module, nn.Identity) and dict(tensors_of(candidate)):
                continue  # the new class leaves out what the old one has here, as timm's networks do their head
            if all(goes) and same and (inside or _is_in(path, root)):
                fitting.modules[path] = site
                return
        for name in [*module._parameters, *module._buffers]:
            full = f"{path}.{name}".lstrip(".")
            if full in names:
                fitting.tensors[full] = names[full]
        for name, child in module.named_children():
            visit(child, f"{path}.{name}".lstrip("."))

    visit(target, "")


def _is_hung_into(old: nn.Module, new: nn.Module) -> bool:
    """Whether the old class hangs a module where the new one has an empty attribute, as D-Fine's decoder has heads."""
    parts = dict(old.named_modules())
    return any(
        name not in part._modules and getattr(part, name, part) is None
        for path, part in new.named_modules()
        if path in parts
        for name in parts[path]._modules
    )


def _is_in(path: str, root: str) -> bool:
    return not root or path.startswith(f"{root}.")


def _dissolved(model: nn.Module, fitting: Fitting) -> list[str]:
    """Return the modules of the old network that do not move, but contain modules or tensors that do."""
    above: dict[str, None] = {"": None}
    for site in (*fitting.modules.values(), *fitting.tensors.values()):
        parts = site.split(".")
        above.update(dict.fromkeys(".".join(parts[:i]) for i in range(1, len(parts))))
    return [site for site in above if not site or isinstance(dict(model.named_modules()).get(site), nn.Module)]


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _dropped(model: nn.Module, fitting: Fitting) -> list[str]:
    """Return the tensors of the old network without a place in the new one."""
    moved = [model.get_submodule(site).state_dict(keep_vars=True) for site in fitting.modules.values()]
    stays = {id(tensor) for tensors in moved for tensor in tensors.values()}
    old_tensors = model.state_dict(keep_vars=True)
    stays |= {id(old_tensors[name]) for name in fitting.tensors.values()}
    return [name for name, tensor in tensors_of(model) if id(tensor) not in stays]


# ---- moving


def _move(surgery: Surgery, model: nn.Module, target: nn.Module, fitting: Fitting) -> None:
    """Put modules and tensors of the old network in their places in the new one."""
    old_tensors = model.state_dict(keep_vars=True)
    twins = target.state_dict(keep_vars=True)
    moved: dict[int, torch.Tensor] = {}
    for path, site in fitting.modules.items():
        module, old = target.get_submodule(path), model.get_submodule(site)
        for name, tensor in module.state_dict(keep_vars=True).items():
            moved[id(tensor)] = old_tensors[f"{site}.{name}"]
        places = dict(old.named_modules())
        for name, part in module.named_modules():
            old_part = places.get(name)
            if isinstance(part, nn.Embedding) and isinstance(old_part, nn.Embedding):
                old_part.padding_idx = part.padding_idx
            for key in [k for k in (*READS_BACK, "is_causal") if k in vars(part) and hasattr(old_part, k)]:
                setattr(old_part, key, getattr(part, key))
        parent, _, name = path.rpartition(".")
        target.get_submodule(parent)._modules[name] = old
    for name, source in fitting.tensors.items():
        moved[id(twins[name])] = old_tensors[source]
    for module in target.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in list(table.items()):
                if tensor is not None and id(tensor) in moved:  # a tied head follows the embedding
                    table[name] = moved[id(tensor)]  # type: ignore[assignment]


def _draw(surgery: Surgery, target: nn.Module, fitting: Fitting, parts: NewParts, operation: ReplaceHeadFields) -> None:
    """Record how the new tensors get their values."""
    new = set(fitting.new)
    dtype = next((p.dtype for n, p in target.named_parameters() if n not in new and p.is_floating_point()), None)
    groups: dict[str, list[str]] = {}
    for name in fitting.new:
        groups.setdefault(_site(target, name, new), []).append(name)
    for site, names in groups.items():
        keys = {name: name[len(site) + 1 :] if site else name for name in names}
        tensors = {}
        for name, key in keys.items():
            path, _, last = name.rpartition(".")
            owner = target.get_submodule(path)
            tensor: Any = owner._parameters.get(last, owner._buffers.get(last))
            if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype and last in owner._parameters:
                cast = nn.Parameter(tensor.to(dtype), requires_grad=tensor.requires_grad)
                for module in target.modules():
                    for parameter_name, value in list(module._parameters.items()):
                        if value is tensor:
                            module._parameters[parameter_name] = cast
                tensor = cast
            tensors[key] = tensor
        surgery.draw(tensors, partial(parts.draw, site, sorted(tensors)))
        if operation.init == "zeros" and operation.classes is not None:
            for tensor in tensors.values():
                if operation.count in tensor.shape[:1]:
                    surgery.derive(tensor, [tensor], torch.zeros_like)


def _site(model: nn.Module, name: str, new: set[str]) -> str:
    """Return the topmost module around ``name`` whose tensors are all new; else the module that owns ``name``."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        site = ".".join(parts[:length])
        if all(f"{site}.{n}" in new for n, _ in tensors_of(model.get_submodule(site))):
            return site
    return ".".join(parts[:-1])


def _sites(model: nn.Module, names: list[str]) -> list[str]:
    """Return the topmost modules that contain only these tensors, and the names of the remaining tensors."""
    chosen = set(names)
    sites = list(dict.fromkeys(_site(model, name, chosen) or name for name in names))
    return [site for site in sites if not any(site.startswith(f"{ancestor}.") for ancestor in sites)]
