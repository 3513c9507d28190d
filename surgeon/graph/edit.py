"""Edits of a module tree, and the difference between a tree before and after one."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.grafts import Tap, hook
from surgeon.plans import Edit

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


@dataclass(frozen=True)
class Snapshot:
    """What a tree holds, by identity: the modules, the tensors and which of these train."""

    modules: dict[str, nn.Module]
    tensors: dict[str, object]
    trainable: dict[str, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Take stock of ``model``."""
        modules, tensors, trainable = {}, {}, {}
        for prefix, module in model.named_modules(remove_duplicate=False):
            modules[prefix] = module
            dot = f"{prefix}." if prefix else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    tensors[dot + name] = parameter
                    trainable[dot + name] = parameter.requires_grad
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    tensors[dot + name] = buffer
        return cls(modules, tensors, trainable)

    def unclaimed(self, after: Snapshot, claims: Iterable[str], frozen: Iterable[str]) -> list[str]:
        """The names that differ between two snapshots and that no claim of the journal covers.

        Args:
            after: The snapshot that follows this one.
            claims: Sites whose subtree the journal says has changed.
            frozen: Sites whose training state the journal says has changed.
        """
        names = self.tensors.keys() | after.tensors.keys()
        structural = set(claims)
        state = structural | set(frozen)
        changed = {n for n in names if self.tensors.get(n) is not after.tensors.get(n)}
        unclaimed = {n for n in changed if not _covered(n, structural)}
        for name in names - changed:
            if self.trainable.get(name) != after.trainable.get(name) and not _covered(name, state):
                unclaimed.add(name)
        return sorted(unclaimed)

    def edits(self, after: Snapshot) -> list[Edit]:
        """What left, what came and what changed its training state, each at its topmost site."""
        before_ids = {id(m) for m in self.modules.values()}
        after_ids = {id(m) for m in after.modules.values()}
        gone = [site for site, module in self.modules.items() if id(module) not in after_ids]
        come = [site for site, module in after.modules.items() if id(module) not in before_ids]
        edits = [_edit("-", site, self.modules[site]) for site in _topmost(self._told(gone))]
        edits += [_edit("+", site, after.modules[site]) for site in _topmost(after._told(come))]
        edits += self._moves(after, set(gone), set(come))
        edits += self._state_changes(after)
        return edits

    def _told(self, sites: Iterable[str]) -> list[str]:
        """Without the modules by which surgery reads and collects, which tell nobody anything."""
        return [site for site in sites if site != "grafts" and not isinstance(self.modules[site], Tap)]

    def _moves(self, after: Snapshot, gone: set[str], come: set[str]) -> list[Edit]:
        old_sites: dict[int, list[str]] = {}  # a shared module has several
        for site, module in self.modules.items():
            old_sites.setdefault(id(module), []).append(site)
        moved = {}
        for site, module in after.modules.items():
            if site not in come and site not in (old := old_sites[id(module)]):
                moved[site] = old[0]
        return [Edit("~", site, f"was {moved[site]}") for site in _topmost(moved)]

    def _state_changes(self, after: Snapshot) -> list[Edit]:
        edits = []
        before = {id(self.tensors[name]): state for name, state in self.trainable.items()}
        changed = {
            name for name, state in after.trainable.items() if before.get(id(after.tensors[name]), state) != state
        }
        for state, what in ((False, "frozen"), (True, "trainable")):
            names = {name for name in changed if after.trainable[name] is state}
            for site in _covering(after, names):
                parameters = after.modules[site].parameters() if site in after.modules else [after.tensors[site]]
                edits.append(Edit("~", site, what, sum(p.numel() for p in parameters)))  # type: ignore[attr-defined]
        return edits


def _edit(mark: str, site: str, module: nn.Module) -> Edit:
    parameters = sum(p.numel() for p in module.parameters())
    text = type(module).__name__
    if not list(module.children()) and module.extra_repr():
        text = f"{text}({module.extra_repr()})"
    return Edit(mark, site, text, parameters)  # type: ignore[arg-type]


def _and_above(name: str) -> list[str]:
    """A name and those of all that it lies in, the root's last."""
    parts = name.split(".") if name else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _covered(name: str, sites: set[str]) -> bool:
    return any(each in sites for each in _and_above(name))


def _topmost(sites: Iterable[str]) -> list[str]:
    top: dict[str, None] = {}
    for site in sites:  # parents come before their children
        if not any(each in top for each in _and_above(site)):
            top[site] = None
    return list(top)


def _covering(snapshot: Snapshot, names: set[str]) -> list[str]:
    """The topmost sites all of whose parameters are in ``names``, then the names that are left."""
    missing: Counter[str] = Counter()
    for name in snapshot.trainable:
        missing.update(dict.fromkeys(_and_above(name), name not in names))
    found = _topmost(site for site in snapshot.modules if site in missing and not missing[site])
    covering = set(found)
    return found + sorted(name for name in names if not _covered(name, covering))
