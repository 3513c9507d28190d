"""Describe what is pruned together: groups of units, and the slices of tensors that belong to each unit.

A unit is an attention head, a channel of an MLP or of a convolution. Removing it removes its slice of every tensor of
its group, so that the tensors of the result are rows and columns of the source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

READS, WRITES = "reads", "writes"


@dataclass(frozen=True)
class Slice:
    """Say which entries along one axis of a tensor belong to which unit.

    Attributes:
        site: The module that holds the tensor.
        name: The tensor's name in it.
        axis: The axis.
        size: Entry ``i`` belongs to unit ``i // size``, modulo the number of units.
        units: The unit of each entry, instead; -1 where it belongs to no unit of the group, and stays.
        role: ``reads`` where a layer takes the units as input, ``writes`` where it produces them, else empty.
    """

    site: str
    name: str
    axis: int
    size: int = 1
    units: list[int] | None = None
    role: str = ""

    @property
    def tensor(self) -> str:
        """Return the tensor's name in the network."""
        return f"{self.site}.{self.name}".lstrip(".")

    def unit_of(self, length: int, count: int) -> torch.Tensor:
        """Return the unit of each of ``length`` entries, of ``count`` units."""
        if self.units is not None:
            return torch.tensor(self.units)
        return torch.arange(length) // self.size % count

    def indices(self, length: int, count: int, kept: Sequence[int]) -> list[int]:
        """Return the entries that stay with the units ``kept``."""
        units = self.unit_of(length, count)
        stays = torch.isin(units, torch.tensor([-1, *kept]))
        indices: list[int] = stays.nonzero().flatten().tolist()
        return indices


@dataclass(frozen=True)
class Group:
    """Hold units that are removed or kept in several tensors at once.

    Attributes:
        site: The smallest module around all of its tensors.
        count: The number of units.
        slices: The tensors with entries for each unit.
        settings: Attributes of modules that count the units, by site and name, and how many they count for how many
            units; what a layer's own shape says is not listed.
        bins: Units are kept in equal numbers from each of so many equal runs of them: query heads that share a
            key-value head.
        kept: The units that stay.
    """

    site: str
    count: int
    slices: list[Slice]
    settings: list[tuple[str, str, int, int]]
    bins: int = 1
    kept: list[int] | None = None

    def keeping(self, kept: Sequence[int]) -> Group:
        """Return the group with a choice of units."""
        return replace(self, kept=sorted(kept))

    def plain(self) -> dict[str, Any]:
        """Return the group as JSON-able data, without defaults."""
        data = asdict(self)
        data["slices"] = [
            {key: value for key, value in entry.items() if value not in (None, "") and (key, value) != ("size", 1)}
            for entry in data["slices"]
        ]
        return data

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Group:
        """Read a group from JSON-able data."""
        slices = [Slice(**entry) for entry in data["slices"]]
        settings = [(site, name, many, divisor) for site, name, many, divisor in data["settings"]]
        return cls(**{**data, "slices": slices, "settings": settings})


def is_linear(module: nn.Module | None) -> bool:
    """Return whether a module is a linear layer, of torch or of transformers."""
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_conv1d(module: nn.Module | None) -> bool:
    """Return whether a module is transformers' Conv1D, a linear layer whose weight is transposed."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def take(tensor: torch.Tensor, *, axis: int, indices: Sequence[int]) -> torch.Tensor:
    """Select entries along an axis."""
    return tensor.index_select(axis, torch.tensor(indices, dtype=torch.long, device=tensor.device))


def prune(surgery: Surgery, groups: Sequence[Group]) -> None:
    """Remove the units that do not stay, with what follows in settings of modules."""
    modules = dict(surgery.model.named_modules())
    for (site, name, axis), indices in stays_of(groups, modules).items():
        shape = list(getattr(modules[site], name).shape)
        shape[axis] = len(indices)
        surgery.reshape(site, name, shape, partial(take, axis=axis, indices=indices))
    with surgery.bookkeeping():
        _follow(groups, modules)


def prune_copy(module: nn.Module, site: str, groups: Sequence[Group], values: dict[str, torch.Tensor]) -> None:
    """Remove units from a copy of the module at ``site`` that has no values, and from ``values``, by name in it."""
    modules = {f"{site}.{name}".strip("."): part for name, part in module.named_modules(remove_duplicate=False)}
    for (holder, name, axis), indices in stays_of(groups, modules).items():
        old = getattr(modules[holder], name)
        new: torch.Tensor = take(old.detach(), axis=axis, indices=indices)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for key in [key for key, tensor in table.items() if tensor is old]:
                    table[key] = new  # type: ignore[assignment]
        inside = f"{holder}.{name}".removeprefix(f"{site}.").strip(".")
        if inside in values:
            values[inside] = take(values[inside], axis=axis, indices=indices)
    _follow(groups, modules)


def stays_of(groups: Sequence[Group], modules: Mapping[str, nn.Module]) -> dict[tuple[str, str, int], list[int]]:
    """Return the entries that stay, for each tensor and axis that loses some; a tied tensor once."""
    first: dict[int, tuple[str, str]] = {}
    stays: dict[tuple[str, str, int], set[int]] = {}
    lengths: dict[tuple[str, str, int], int] = {}
    for group in groups:
        assert group.kept is not None
        for entry in group.slices:
            tensor = getattr(modules[entry.site], entry.name)
            key = (*first.setdefault(id(tensor), (entry.site, entry.name)), entry.axis)
            lengths[key] = tensor.shape[entry.axis]
            entries = set(entry.indices(lengths[key], group.count, group.kept))
            stays[key] = stays[key] & entries if key in stays else entries
    return {key: sorted(entries) for key, entries in stays.items() if len(entries) < lengths[key]}


def _follow(groups: Sequence[Group], modules: Mapping[str, nn.Module]) -> None:
    """Set what modules say of their widths."""
    for group in groups:
        assert group.kept is not None
        for site in dict.fromkeys(entry.site for entry in group.slices):
            _follow_shape(modules[site])
        for site, name, many, divisor in group.settings:
            setattr(modules[site], name, len(group.kept) * many // divisor)


def _follow_shape(module: Any) -> None:
    """Set the widths that a layer states besides its tensors' shapes."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        if module.groups == module.out_channels == module.in_channels and module.groups > 1:
            module.groups = module.in_channels = module.out_channels = weight.shape[0]
        elif module.transposed:
            module.in_channels, module.out_channels = weight.shape[0], weight.shape[1] * module.groups
        else:
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        statistics: Any = module.running_mean
        module.num_features = len(weight if weight is not None else statistics)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
    elif is_conv1d(module):
        module.nx, module.nf = weight.shape
