"""Take a snapshot of a network's modules and tensors, to see what an operation changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from surgeon.nn.grafts import Tap
from surgeon.surgery.plan import Edit


@dataclass(frozen=True)
class Snapshot:
    """Hold the modules and tensors of a network, by identity, and what the tensors are.

    Attributes:
        modules: The modules by site.
        tensors: The parameters and persistent buffers by name.
        trainable: Whether each parameter trains.
        hooks: How many hooks the gradient of each parameter has.
        dtypes: The dtype of each tensor.
        contents: The object in torch's core behind each tensor, which ``torch.utils.swap_tensors`` exchanges.
    """

    modules: dict[str, nn.Module]
    tensors: dict[str, object]
    trainable: dict[str, bool]
    hooks: dict[str, int]
    dtypes: dict[str, torch.dtype]
    contents: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Take a snapshot of ``model``."""
        modules, trainable, hooks = {}, {}, {}
        tensors: dict[str, torch.Tensor] = {}
        for prefix, module in model.named_modules(remove_duplicate=False):
            modules[prefix] = module
            dot = f"{prefix}." if prefix else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    tensors[dot + name] = parameter
                    trainable[dot + name] = parameter.requires_grad
                    hooks[dot + name] = _hooks_on(parameter)
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    tensors[dot + name] = buffer
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        contents = {name: tensor._cdata for name, tensor in tensors.items()}
        return cls(modules, dict(tensors), trainable, hooks, dtypes, contents)

    def unclaimed(self, after: Snapshot, claims: Iterable[str], frozen: Iterable[str]) -> list[str]:
        """List the names that differ between two snapshots and that the journal does not mention.

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

    def cast(self, after: Snapshot, claims: Iterable[str]) -> list[str]:
        """List the tensors that were cast in place to another dtype, and that the journal does not mention."""
        structural = set(claims)
        dtypes = {id(tensor): self.dtypes[name] for name, tensor in self.tensors.items()}
        changed = (n for n, dtype in after.dtypes.items() if dtypes.get(id(after.tensors[n]), dtype) != dtype)
        return [name for name in changed if not _covered(name, structural)]

    def swapped(self, after: Snapshot, claims: Iterable[str]) -> list[str]:
        """List the tensors whose contents were exchanged in place, and that the journal does not mention."""
        structural = set(claims)
        contents = {id(tensor): self.contents[name] for name, tensor in self.tensors.items()}
        changed = (n for n, value in after.contents.items() if contents.get(id(after.tensors[n]), value) != value)
        return [name for name in changed if not _covered(name, structural)]

    def hooked(self, after: Snapshot) -> list[str]:
        """List the parameters on whose gradients there are more hooks than before."""
        counts = {id(self.tensors[name]): count for name, count in self.hooks.items()}
        return [name for name, count in after.hooks.items() if count > counts.get(id(after.tensors[name]), 0)]

    def exchanged(self, after: Snapshot, claims: Iterable[str]) -> list[str]:
        """List the topmost sites that hold another module than before, and that the journal does not mention."""
        claimed = set(claims)
        names = {**self.modules, **after.modules}
        exchanged_names = [name for name in names if self.modules.get(name) is not after.modules.get(name)]
        return _topmost(sorted(name for name in exchanged_names if not _covered(name, claimed)))

    def edits(self, after: Snapshot) -> list[Edit]:
        """List what was removed, added, moved, frozen or unfrozen, each at its topmost site."""
        before_ids = {id(m) for m in self.modules.values()}
        after_ids = {id(m) for m in after.modules.values()}
        removed = [site for site, module in self.modules.items() if id(module) not in after_ids]
        added = [site for site, module in after.modules.items() if id(module) not in before_ids]
        edits = [_edit("-", site, self.modules[site]) for site in _topmost(self._visible(removed))]
        edits += [_edit("+", site, after.modules[site]) for site in _topmost(after._visible(added))]
        edits += self._moves(after, set(removed), set(added))
        edits += self._state_changes(after)
        return edits

    def _visible(self, sites: Iterable[str]) -> list[str]:
        """Leave out the modules that surgeon adds to read and collect outputs: they would only clutter the plan."""
        return [site for site in sites if site != "grafts" and not isinstance(self.modules[site], Tap)]

    def _moves(self, after: Snapshot, removed: set[str], added: set[str]) -> list[Edit]:
        old_sites: dict[int, list[str]] = {}  # a shared module has several
        for site, module in self.modules.items():
            old_sites.setdefault(id(module), []).append(site)
        moved = {}
        for site, module in after.modules.items():
            if site not in added and site not in (old := old_sites[id(module)]):
                moved[site] = old[0]
        return [Edit("~", site, f"was {moved[site]}") for site in _topmost(moved)]

    def _state_changes(self, after: Snapshot) -> list[Edit]:
        edits = []
        before = {id(self.tensors[name]): state for name, state in self.trainable.items()}
        changed = {
            name for name, state in after.trainable.items() if before.get(id(after.tensors[name]), state) != state
        }
        for state, status in ((False, "frozen"), (True, "trainable")):
            names = {name for name in changed if after.trainable[name] is state}
            for site in _covering(after, names):
                parameters = after.modules[site].parameters() if site in after.modules else [after.tensors[site]]
                edits.append(Edit("~", site, status, sum(p.numel() for p in parameters)))  # type: ignore[attr-defined]
        return edits


def _hooks_on(parameter: nn.Parameter) -> int:
    """Count the hooks on the gradient of a parameter."""
    tables = (parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None))
    return sum(len(table) for table in tables if table)


def _edit(mark: str, site: str, module: nn.Module) -> Edit:
    parameters = sum(p.numel() for p in module.parameters())
    text = type(module).__name__
    if not list(module.children()) and module.extra_repr():
        text = f"{text}({module.extra_repr()})"
    return Edit(mark, site, text, parameters)  # type: ignore[arg-type]


def _and_above(name: str) -> list[str]:
    """List a name and the names of all its parents, the root last."""
    parts = name.split(".") if name else []
    return [".".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _covered(name: str, sites: set[str]) -> bool:
    return any(parent in sites for parent in _and_above(name))


def _topmost(sites: Iterable[str]) -> list[str]:
    top: dict[str, None] = {}
    for site in sites:  # parents come before their children
        if not any(parent in top for parent in _and_above(site)):
            top[site] = None
    return list(top)


def _covering(snapshot: Snapshot, names: set[str]) -> list[str]:
    """List the topmost sites all of whose parameters are in ``names``, then the names that are left."""
    missing: Counter[str] = Counter()
    for name in snapshot.trainable:
        missing.update(dict.fromkeys(_and_above(name), name not in names))
    sites = _topmost(site for site in snapshot.modules if site in missing and not missing[site])
    covering = set(sites)
    return sites + sorted(name for name in names if not _covered(name, covering))
