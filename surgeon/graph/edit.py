"""Edit a module tree: replace and remove modules, move hooks, switch LayerDrop off."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.grafts import Tap, hook

CONTAINERS = (nn.Sequential, nn.ModuleList)
"""The containers whose children are numbered."""
LAYER_DROP = ("layerdrop", "speech_encoder_layerdrop")
"""The attributes from which transformers reads the rate at which it skips layers in training."""


def parent_of(model: nn.Module, site: str) -> tuple[nn.Module, str]:
    """Get the parent module of ``site``, and the name of ``site`` in it.

    Raises:
        OperationError: ``site`` is the root, which has no parent.
    """
    if not site:
        raise OperationError("the whole network cannot be replaced or removed this way")
    path, _, name = site.rpartition(".")
    return model.get_submodule(path), name


def taps_on(module: nn.Module) -> list[Tap]:
    """List the taps that read the output of ``module``."""
    owners = [getattr(hook, "__self__", None) for hook in module._forward_hooks.values()]
    return [owner for owner in owners if isinstance(owner, Tap)]


def site_of_tap(model: nn.Module, tap: object) -> str | None:
    """Get the site that ``tap`` reads, or None if it reads none."""
    return next((name for name, module in model.named_modules() if tap in taps_on(module)), None)


def exit_site(model: nn.Module) -> str | None:
    """Get the site at which surgery ends the forward pass of ``model``; None if it is not shortened."""
    tap = getattr(model, "exit", None)
    return site_of_tap(model, tap) if isinstance(tap, Tap) else None


def drop_tap(model: nn.Module, tap: Tap) -> None:
    """Remove the hooks of ``tap``, so that it reads no site."""
    for module in model.modules():
        for key, method in list(module._forward_hooks.items()):
            if getattr(method, "__self__", None) is tap:
                del module._forward_hooks[key]


def never_skip(model: nn.Module, site: str) -> list[tuple[str, Any, str]]:
    """Switch off LayerDrop around ``site``: in training it skips layers at random, and a tap would read nothing.

    Source: Fan, Grave & Joulin 2020, "Reducing Transformer Depth on Demand with Structured Dropout".

    Returns:
        Where it was on: the stack of layers, the module or config that has its rate, and the rate's name.
    """
    names, changed = site.split("."), []
    for length, child in enumerate(names):
        above = ".".join(names[:length])
        module = model.get_submodule(above)
        if not isinstance(module._modules[child], nn.ModuleList):  # LayerDrop skips layers of a ModuleList
            continue
        for holder, rate in _layer_drop(module):
            setattr(holder, rate, 0.0)
            changed.append((above, holder, rate))
    return changed


@contextmanager
def all_layers(model: nn.Module) -> Iterator[None]:
    """Switch LayerDrop off within the block, so that every layer runs in training too."""
    rates = {(id(holder), rate): (holder, rate) for m in model.modules() for holder, rate in _layer_drop(m)}
    saved = [(holder, rate, getattr(holder, rate)) for holder, rate in rates.values()]
    try:
        for holder, rate, _ in saved:
            setattr(holder, rate, 0.0)
        yield
    finally:
        for holder, rate, value in saved:
            setattr(holder, rate, value)


def _layer_drop(module: nn.Module) -> Iterator[tuple[Any, str]]:
    """Yield where ``module`` has a LayerDrop rate above 0: some modules read it from their config in the forward."""
    for holder, rates in ((module, LAYER_DROP[:1]), (getattr(module, "config", None), LAYER_DROP)):
        yield from ((holder, r) for r in rates if isinstance(rate := getattr(holder, r, None), float) and rate > 0)


def names_of_parameters(model: nn.Module) -> dict[int, list[str]]:
    """Map the ``id`` of each parameter to all of its names: a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names


def replace_module(model: nn.Module, site: str, module: nn.Module) -> None:
    """Put ``module`` in the place of ``site``, and move the hooks of other modules' taps to it."""
    parent, name = parent_of(model, site)
    old = parent._modules[name]
    if old is not None:
        inside = {id(m) for m in old.modules()}
        outside = {id(m) for m in model.modules()} - inside
        for method in old._forward_hooks.values():
            if id(getattr(method, "__self__", None)) in outside:
                hook(module, method)
        module.train(old.training)
    parent._modules[name] = module


def remove_module(model: nn.Module, site: str, *, optional: bool = False) -> None:
    """Remove a module, or put None in its place if it is ``optional`` to its parent.

    In the middle of a container, put an identity in its place, so that its siblings keep their names and order.
    """
    parent, name = parent_of(model, site)
    if optional:
        parent._modules[name] = None
    elif isinstance(parent, CONTAINERS) and name != _last_child(parent):
        parent._modules[name] = nn.Identity()
    else:
        del parent._modules[name]


def _last_child(container: nn.Module) -> str:
    """Get the name of the last layer in a container, not counting the grafts that surgery may have added."""
    return [name for name in container._modules if name not in ("grafts", "exit")][-1]


def prune(model: nn.Module, keep: Collection[str], *, lengths: bool = False) -> list[str]:
    """Remove every module that ``keep`` does not name, with its submodules.

    Args:
        model: The network.
        keep: The sites that stay.
        lengths: Put identities in place of modules removed from a container, for networks whose forward depends on
            the container's length.

    Returns:
        The topmost sites that were removed.
    """
    removed: list[str] = []

    def visit(module: nn.Module, name: str) -> None:
        # from the end: the last child of a container can be deleted, one in the middle becomes an identity
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
    """Return whether a module is an empty ``Sequential``, as ShuffleNet has in the place of a branch."""
    return isinstance(module, nn.Sequential) and not module._modules


def keep_children(container: nn.Module, indices: Sequence[int]) -> None:
    """Keep the children of an ``nn.ModuleList`` or ``nn.Sequential`` at ``indices``, renumbered from 0."""
    children = list(container._modules.values())
    container._modules = OrderedDict((str(i), children[index]) for i, index in enumerate(indices))
