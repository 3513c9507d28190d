"""Find what operations did to the values of existing tensors: reinitialised, borrowed, computed, or reshaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from surgeon.graph.tensors import tensors_of
from surgeon.surgery.origins import Borrowed, Derived, Filled, Kept, New, Origin, Origins
from surgeon.surgery.plan import Edit


@dataclass(frozen=True)
class Values:
    """Hold the tensors of a network, the modules that own them, and where their values come from."""

    tensors: dict[str, torch.Tensor]
    origins: dict[str, Origin | None]
    modules: dict[str, nn.Module]

    @classmethod
    def of(cls, model: nn.Module, origins: Origins) -> Values:
        """Take a snapshot of ``model``."""
        tensors = dict(tensors_of(model))
        by_name = {name: origins.get(tensor) for name, tensor in tensors.items()}
        return cls(tensors, by_name, dict(model.named_modules()))

    def edits(self, after: Values) -> list[Edit]:
        """List changes to tensors of modules that existed before, each at the topmost site that shares it."""
        changed: dict[str, str] = {}
        for name, tensor in after.tensors.items():
            site = name.rpartition(".")[0]
            old = self.tensors.get(name)
            if old is None or self.modules.get(site) is not after.modules[site]:
                continue  # new and replaced modules are listed by Snapshot.edits
            if old is not tensor and old.shape != tensor.shape:
                changed[name] = f"{_as_text(old)} → {_as_text(tensor)}"
            elif old.dtype != tensor.dtype:
                changed[name] = f"{_kind(old)} → {_kind(tensor)}"
            elif self.origins[name] != after.origins[name]:
                changed[name] = _description(after.origins[name])
        return [
            Edit("~", site, change, sum(after.tensors[name].numel() for name in _below(site, changed)))
            for site, change in _gathered(after, changed).items()
        ]


def _gathered(values: Values, changed: Mapping[str, str]) -> dict[str, str]:
    """Find the topmost sites all of whose tensors changed in one way, and the names that are left."""
    topmost: dict[str, str] = {}
    # conversions leave whole numbers, such as BatchNorm's counter, as they are
    counted = [n for n, t in values.tensors.items() if n in changed or t.is_floating_point()]
    for site in values.modules if changed else ():
        inside = _below(site, counted)
        ways = {changed.get(name) for name in inside}
        if len(ways) == 1 and (way := ways.pop()) is not None and not _covered(site, topmost):
            topmost[site] = way
    return topmost | {name: way for name, way in changed.items() if not _covered(name, topmost)}


def _below(site: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if not site or name == site or name.startswith(f"{site}.")]


def _covered(name: str, sites: Mapping[str, str]) -> bool:
    return any(not site or name == site or name.startswith(f"{site}.") for site in sites)


def _description(origin: Origin | None) -> str:
    if isinstance(origin, Borrowed):
        return f"values of {origin.donor}"
    if isinstance(origin, New):
        return "reinitialised"
    if isinstance(origin, Filled):
        return "values filled in"
    if isinstance(origin, Derived):
        return "values computed"
    return "values of the source" if isinstance(origin, Kept) else "values unknown"


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _as_text(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
