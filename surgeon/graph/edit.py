"""Edits of a module tree, and the difference between a tree before and after one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.grafts import Tap, hook

CONTAINERS = (nn.Sequential, nn.ModuleList)
"""What holds modules by number."""
LAYER_DROP = ("layerdrop", "speech_encoder_layerdrop")
"""The rates at which the transformers library skips layers in training, as they are called where they are read."""


def parent_of(model: nn.Module, site: str) -> tuple[nn.Module, str]:
    """The module that holds ``site``, and the name it holds it under.

    Raises:
        OperationError: ``site`` is the root, which nothing holds.
    """
    if not site:
        raise OperationError("the whole network cannot be replaced or removed this way")
    path, _, name = site.rpartition(".")
    return model.get_submodule(path), name


def taps_on(module: nn.Module) -> list[Tap]:
    """The taps that read what ``module`` produces."""
    owners = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
    return [owner for owner in owners if isinstance(owner, Tap)]


def site_of_tap(model: nn.Module, tap: object) -> str | None:
    """The site that ``tap`` reads; None for one that reads nothing."""
    return next((name for name, module in model.named_modules() if tap in taps_on(module)), None)


def exit_site(model: nn.Module) -> str | None:
    """The site at which surgery ends the forward of ``model``; None where it runs to its own end."""
    tap = getattr(model, "exit", None)
    return site_of_tap(model, tap) if isinstance(tap, Tap) else None


def drop_tap(model: nn.Module, tap: Tap) -> None:
    """Let ``tap`` read nothing any more."""
    for module in model.modules():
        for key, method in list(module._forward_hooks.items()):
            if getattr(method, "__self__", None) is tap:
                del module._forward_hooks[key]


def never_skip(model: nn.Module, site: str) -> list[str]:
    """Switch off LayerDrop around ``site``, which in training leaves out a layer at times and what reads it too.

    Source: Fan, Grave & Joulin 2020, "Reducing Transformer Depth on Demand with Structured Dropout".

    Returns:
        The stacks of layers that it was on in.
    """
    names, changed = site.split("."), []
    for length, child in enumerate(names):
        above = ".".join(names[:length])
        module = model.get_submodule(above)
        if not isinstance(module._modules[child], nn.ModuleList):  # it is the layers of a list that are left out
            continue
        for holder, rate in _layer_drop(module):
            setattr(holder, rate, 0.0)
            changed.append(above)
    return list(dict.fromkeys(changed))


@contextmanager
def all_layers(model: nn.Module) -> Iterator[None]:
    """Within it, LayerDrop is off everywhere: every layer runs in training too."""
    found = {(id(holder), rate): (holder, rate) for m in model.modules() for holder, rate in _layer_drop(m)}
    saved = [(holder, rate, getattr(holder, rate)) for holder, rate in found.values()]
    try:
        for holder, rate, _ in saved:
            setattr(holder, rate, 0.0)
        yield
    finally:
        for holder, rate, value in saved:
            setattr(holder, rate, value)


def _layer_drop(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """What holds a rate above 0 at which ``module`` leaves out layers; some read it from their config as they run."""
    for holder, rates in ((module, LAYER_DROP[:1]), (getattr(module, "config", None), LAYER_DROP)):
        yield from ((holder, r) for r in rates if isinstance(rate := getattr(holder, r, None), float) and rate > 0)


def names_of_parameters(model: nn.Module) -> dict[int, list[str]]:
    """Every name of each parameter, by its identity: a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def replace_module(model: nn.Module, site: str, module: nn.Module) -> None:
    """Put ``module`` in the place of ``site``; what other modules of the tree read there or add, stays."""
    parent, name = parent_of(model, site)
    old = parent._modules[name]
    if old is not None:
        inside = {id(m) for m in old.modules()}
        others = {id(m) for m in model.modules()} - inside
        for method in old._forward_hooks.values():
            if id(getattr(method, "__self__", None)) in others:
                hook(module, method)
        module.train(old.training)
    parent._modules[name] = module


def remove_module(model: nn.Module, site: str, *, optional: bool = False) -> None:
    """Remove a module, or put None in its place if it is ``optional`` to its parent.

    In the middle of a container it leaves an identity, so that its siblings keep their names and order.
    """
    parent, name = parent_of(model, site)
    if optional:
        parent._modules[name] = None
    elif isinstance(parent, CONTAINERS) and name != _last_child(parent):
        parent._modules[name] = nn.Identity()
    else:
        del parent._modules[name]


def _last_child(container: nn.Module) -> str:
    """The last of the layers in a container, which surgery may have added grafts to."""
    return [name for name in container._modules if name not in ("grafts", "exit")][-1]


def prune(model: nn.Module, keep: Collection[str], *, lengths: bool = False) -> list[str]:
    """Remove every module that ``keep`` does not name; a module below one that is removed goes with it.

    Args:
        model: The network.
        keep: The sites that stay.
        lengths: Leave an identity in a container for each that is removed from it, for networks that ask how many
            there are.

    Returns:
        The topmost sites that were removed.
    """
    removed: list[str] = []

    def visit(module: nn.Module, name: str) -> None:
        # from the end, so that the tail of a container goes before what would make it a middle
        for child, sub in reversed(list(module._modules.items())):
            site = f"{name}.{child}" if name else child
            if sub is None:
                continue
            if site in keep:
                visit(sub, site)
            elif not isinstance(sub, nn.Identity) and not _is_empty(sub):
                if lengths and isinstance(module, CONTAINERS):
                    module._modules[child] = nn.Identity()
                else:
                    remove_module(model, site)
                removed.append(site)

    visit(model, "")
    return removed[::-1]


def _is_empty(module: nn.Module) -> bool:
    """A sequence of nothing, which a ShuffleNet has in the place of a branch: it does nothing and costs nothing."""
    return isinstance(module, nn.Sequential) and not module._modules


def keep_children(container: nn.Module, indices: Sequence[int]) -> None:
    """Keep the children of an ``nn.ModuleList`` or ``nn.Sequential`` at ``indices``, renumbered from 0."""
    children = list(container._modules.values())
    container._modules = OrderedDict((str(i), children[index]) for i, index in enumerate(indices))
