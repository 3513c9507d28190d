"""What operations do to the values of tensors that stay: drawn afresh, borrowed, computed, of another shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from surgeon.graph.tensors import tensors_of
from surgeon.surgery.origins import Borrowed, Derived, Kept, New, Origin, Origins
from surgeon.surgery.plan import Edit


@dataclass(frozen=True)
class Values:
    """The tensors of a tree, the modules that own them, and where their values come from."""

    tensors: dict[str, torch.Tensor]
    origins: dict[str, Origin | None]
    modules: dict[str, nn.Module]

    @classmethod
    def of(cls, model: nn.Module, origins: Origins) -> Values:
        """Take stock of ``model``."""
        tensors = dict(tensors_of(model))
        known = {name: origins.get(tensor) for name, tensor in tensors.items()}
        return cls(tensors, known, dict(model.named_modules()))

    def edits(self, after: Values) -> list[Edit]:
        """What became of the tensors of modules that were there before, each at the topmost site that shares it."""
        changed: dict[str, str] = {}
        for name, tensor in after.tensors.items():
            site = name.rpartition(".")[0]
            old = self.tensors.get(name)
            if old is None or self.modules.get(site) is not after.modules[site]:
                continue  # what is new, or was put there, is told as a module
            if old is not tensor and old.shape != tensor.shape:
                changed[name] = f"{_shown(old)} → {_shown(tensor)}"
            elif self.origins[name] != after.origins[name]:
                changed[name] = _told(after.origins[name])
        return [
            Edit("~", site, what, sum(after.tensors[name].numel() for name in _below(site, changed)))
            for site, what in _gathered(after, changed).items()
        ]


def _gathered(values: Values, changed: Mapping[str, str]) -> dict[str, str]:
    """The topmost sites all of whose tensors changed in one way; the names of those that are left."""
    found: dict[str, str] = {}
    for site in values.modules if changed else ():
        inside = _below(site, values.tensors)
        ways = {changed.get(name) for name in inside}
        if len(ways) == 1 and (way := ways.pop()) is not None and not _covered(site, found):
            found[site] = way
    return found | {name: way for name, way in changed.items() if not _covered(name, found)}


def _below(site: str, names: Mapping[str, object]) -> list[str]:
    return [name for name in names if not site or name == site or name.startswith(f"{site}.")]


def _covered(name: str, sites: Mapping[str, str]) -> bool:
    return any(not site or name == site or name.startswith(f"{site}.") for site in sites)


def _told(origin: Origin | None) -> str:
    if isinstance(origin, Borrowed):
        return f"values of {origin.donor}"
    if isinstance(origin, New):
        return "drawn afresh"
    if isinstance(origin, Derived):
        return "values computed"
    return "values of the source" if isinstance(origin, Kept) else "values unknown"


def _shown(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
