"""Find the roles of a network's modules: its head, stem, stacks of blocks, norms, embeddings, pool."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from surgeon.errors import OperationError
from surgeon.families.registry import families_of, with_config_fields
from surgeon.families.stack import Stack
from surgeon.families.transformers.heads import class_counts, has_head
from surgeon.graph.blocks import declared_stacks, traced_stacks
from surgeon.graph.sites import ROLES, select
from surgeon.interfaces.composite import root_of
from surgeon.interfaces.family import Family
from surgeon.nn.grafts import TRUNK_OUTPUT, Grafted

if TYPE_CHECKING:
    from surgeon.graph.trace import Trace

GRAFTS = re.compile(r"(grafts|exit)(\.|$)")
NORM = re.compile(r"(Norm|Normalization)(\d?d)?$|LayerNorm|RMSNorm|BatchNorm")
POOL = re.compile(r"^Adaptive\w*Pool\dd$|Pooler$|Pooling$|AttentionPool")
SQUEEZE = re.compile(r"Squeeze|SEModule|SELayer|SEBlock|PyramidPooling|ASPP")
NO_HEAD = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


@dataclass(frozen=True)
class RoleSite:
    """Hold a site that has a role, and the evidence for that."""

    site: str
    evidence: str


class Roles:
    """Find the roles in one network, each when it is first read.

    Args:
        model: The network.
        trace: Traces the network; only called if no declared fact gives the role.
        overrides: Roles as a recipe gives them, by name: a selector, or several.
        families: The families that the network belongs to, the most specific first.
    """

    def __init__(
        self,
        model: nn.Module,
        trace: Callable[[], Trace],
        overrides: Mapping[str, str | Sequence[str]],
        families: Sequence[Family],
    ) -> None:
        self._model = model
        self._trace = trace
        self._overrides = dict(overrides)
        self._families = families
        self._modules = {n: m for n, m in model.named_modules() if not GRAFTS.match(n)}

    def sites(self, role: str) -> list[str]:
        """List the sites in ``role``; blocks in executed order. Empty if no module has it."""
        if role == "blocks":
            return self.block_sites
        if role in ROLES:
            return [member.site for member in getattr(self, role)]
        return [member.site for member in self._overridden(role) or []]

    @property
    def block_sites(self) -> list[str]:
        """List the blocks of all stacks, in executed order."""
        return [site for stack in self.blocks for site in stack.sites]

    @cached_property
    def head(self) -> list[RoleSite]:
        """Find the final prediction layers, whose width is the number of classes; none for a base model."""
        if (override := self._overridden("head")) is not None:
            return override
        if isinstance(self._model, Grafted):
            if TRUNK_OUTPUT in self._model.grafts:
                return [RoleSite(f"grafts.{TRUNK_OUTPUT}.head", "the branch that gives the logits")]
            if self._model.exit is not None:
                return []
        if hasattr(getattr(self._model, "config", None), "to_dict"):
            return self._transformers_head()
        if any(family.head for family in self._families):
            return self._declared("head")
        return self._last_of_width(self._output_widths(), "as wide as the output")

    @cached_property
    def aux(self) -> list[RoleSite]:
        """Find the auxiliary heads, which only run in training."""
        return self._declared("aux")

    @cached_property
    def stem(self) -> list[RoleSite]:
        """Find the first layer: a convolution, a patch or word embedding, a linear layer."""
        if declared := self._declared("stem"):
            return declared
        kinds = (nn.modules.conv._ConvNd, nn.Embedding, nn.Linear)
        try:
            order: Sequence[str] = sorted(self._ran(), key=lambda s: self._trace().visits[s].started)
            how = "the first layer that runs"
        except OperationError:
            order, how = list(self._modules), "the first layer of the tree; it could not be run"
        first = [site for site in order if isinstance(self._modules[site], kinds)]
        return [RoleSite(site, how) for site in first[:1]]

    @cached_property
    def blocks(self) -> list[Stack]:
        """Find the stacks of blocks, in executed order."""
        if (override := self._overridden("blocks")) is not None:
            sites = [member.site for member in override]
            stacks = declared_stacks(self._model, sites, "said by the user", self._families, named=True)
        else:
            declared = [f for f in self._families if f.blocks]
            if declared:
                sites = self._resolve(declared[0].blocks)
                stacks = declared_stacks(self._model, sites, f"declared for {declared[0].name}", self._families)
            else:
                stacks = traced_stacks(self._model, self._trace, self._families)
        return with_config_fields(self._model, stacks, self._families)

    @cached_property
    def norms(self) -> list[RoleSite]:
        """Find the normalisation layers, by their classes."""
        if (override := self._overridden("norms")) is not None:
            return override
        return [
            RoleSite(site, f"class {type(module).__name__}")
            for site, module in self._modules.items()
            if site and not list(module.children()) and NORM.search(type(module).__name__)
        ]

    @cached_property
    def embeddings(self) -> list[RoleSite]:
        """Find the embeddings of words, positions and types, except those inside blocks."""
        if (override := self._overridden("embeddings")) is not None:
            return override
        return [
            RoleSite(site, f"class {type(module).__name__}")
            for site, module in self._modules.items()
            if isinstance(module, nn.Embedding) and not self._in_block(site)
        ]

    @cached_property
    def pool(self) -> list[RoleSite]:
        """Find the layer that pools a feature map or a sequence into one vector."""
        if declared := self._declared("pool"):
            return declared
        pools = [
            RoleSite(site, f"class {type(module).__name__}")
            for site, module in self._modules.items()
            if POOL.search(type(module).__name__) and not self._in_block(site) and not self._squeezes(site)
        ]
        return pools[-1:]

    # ---- the evidence

    def _overridden(self, role: str) -> list[RoleSite] | None:
        override = self._overrides.get(role)
        if override is None:
            return None
        selectors = [override] if isinstance(override, str) else list(override)
        sites = [site.name for selector in selectors for site in select(self._model, selector)]
        return [RoleSite(site, "override in the recipe") for site in dict.fromkeys(sites)]

    def _declared(self, role: str, *, exact: bool = False) -> list[RoleSite]:
        if (override := self._overridden(role)) is not None:
            return override
        for family in self._families:
            if exact and not family.exact:
                continue
            sites = self._resolve(getattr(family, role))
            if present := [s for s in sites if not isinstance(self._modules[s], nn.Identity)]:
                return [RoleSite(site, f"declared for {family.name}") for site in present]
        return []

    def _resolve(self, paths: Sequence[str]) -> list[str]:
        """List the sites that paths name, without those that contain another one."""
        sites = [s for path in paths for s in self._modules if _matches(s, path)]
        return [s for s in dict.fromkeys(sites) if not any(inner.startswith(f"{s}.") for inner in sites)]

    def _transformers_head(self) -> list[RoleSite]:
        name = _own_class(self._model).__name__
        if not has_head(name):
            return []
        if certain := self._declared("head", exact=True):
            return certain
        counts = class_counts(name, cast("Any", self._model).config)
        for declared in self._declared("head"):
            module = self._modules[declared.site]
            width = _width(module)
            for name, count in counts.items():
                if width == count or not hasattr(module, "weight"):
                    return [RoleSite(declared.site, f"{declared.evidence}; {name} = {count}")]
        for name, count in counts.items():
            last = self._last_of_width({-1: count, 1: count}, f"{name} = {count}")
            if last and not self._in_block(last[0].site):  # an inner layer may have the width by chance
                return last
        return []

    def _output_widths(self) -> dict[int, int]:
        """Get the sizes of the network's output along the dimensions that may be the classes."""
        try:
            shape = self._trace().shape("")
        except OperationError:
            return {}
        return {dim: shape[dim] for dim in (-1, 1) if len(shape) > 1}

    def _last_of_width(self, widths: Mapping[int, int], evidence: str) -> list[RoleSite]:
        """Find the last layer to run whose output has the given size along the last, or the channel, dimension."""
        try:
            traced = self._trace()
        except OperationError:
            return []
        aux = self.sites("aux")
        for site in reversed(self._ran()):
            module = self._modules[site]
            if isinstance(module, NO_HEAD) or NORM.search(type(module).__name__) or _below(site, aux):
                continue
            try:
                shape = traced.shape(site)
            except OperationError:
                continue
            conv = isinstance(module, nn.modules.conv._ConvNd)
            width = _width(module) if conv else shape[-1]
            dims = [1] if conv else [-1]
            if isinstance(module, nn.Conv1d):  # a subclass may transpose its output
                dims.append(-1)
            if len(shape) > 1 and any(shape[dim] == width == widths.get(dim) for dim in dims):
                return [RoleSite(site, f"{evidence} and the last such layer to run")]
        return []

    def _ran(self) -> list[str]:
        """List the layers (modules with parameters and without children), in the order in which they finished."""
        return [site for site in self._trace().order if site in self._modules and _is_layer(self._modules[site])]

    def _in_block(self, site: str) -> bool:
        return any(site.startswith(f"{block}.") for block in self.block_sites)

    def _squeezes(self, site: str) -> bool:
        parts = site.split(".")
        above = [self._modules[".".join(parts[:i])] for i in range(1, len(parts))]
        return any(SQUEEZE.search(type(module).__name__) for module in above)


def find_roles(
    model: nn.Module,
    trace: Callable[[], Trace],
    overrides: Mapping[str, str | Sequence[str]] | None = None,
    *,
    families: Sequence[Family] = (),
) -> Roles:
    """Find the roles of the modules in ``model``.

    Args:
        model: The network.
        trace: Traces the network; only called if no declared fact gives the role.
        overrides: A recipe's ``roles:``. They take precedence.
        families: Declared facts of plugins; they take precedence over the built-in ones.
    """
    root = root_of(model)
    if not root:
        return Roles(model, trace, overrides or {}, list(families_of(model, families)))
    part = model.get_submodule(root)
    inside = {
        role: [site.removeprefix(f"{root}.") for site in ([selectors] if isinstance(selectors, str) else selectors)]
        for role, selectors in (overrides or {}).items()
    }
    roles = Roles(part, lambda: trace().below(root), inside, list(families_of(part, families)))
    return cast("Roles", _RolesBelow(roles, root))


class _RolesBelow:
    """Present the roles of a part of a network under the sites that its modules have in the whole network."""

    def __init__(self, part: Roles, root: str) -> None:
        self._part = part
        self._root = root

    def sites(self, role: str) -> list[str]:
        return [self._whole(site) for site in self._part.sites(role)]

    def __getattr__(self, role: str) -> list[Any]:
        return [self._moved(member) for member in getattr(self._part, role)]

    def _moved(self, member: RoleSite | Stack | str) -> RoleSite | Stack | str:
        if isinstance(member, RoleSite):
            return replace(member, site=self._whole(member.site))
        if isinstance(member, Stack):
            sites = [self._whole(site) for site in member.sites]
            return replace(member, container=self._whole(member.container), sites=sites)
        return self._whole(member)

    def _whole(self, site: str) -> str:
        return f"{self._root}.{site}".rstrip(".")


def _below(site: str, sites: Sequence[str]) -> bool:
    return any(site == ancestor or site.startswith(f"{ancestor}.") for ancestor in sites)


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has parameters and no children, not counting those that a parametrization adds."""
    parts = dict(module.named_children())
    parametrized = parts.pop("parametrizations", None) is not None
    return not parts and (parametrized or bool(module._parameters))


def _matches(site: str, path: str) -> bool:
    names, patterns = site.split("."), path.split(".")
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _own_class(model: nn.Module) -> type[nn.Module]:
    """Get the class of a network without the classes that surgeon has mixed into it."""
    return next(cls for cls in type(model).__mro__ if not cls.__module__.startswith("surgeon."))


def _width(module: nn.Module) -> int | None:
    for name in ("out_features", "out_channels", "nf"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    return None
