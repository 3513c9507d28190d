"""Look up the declared facts about a network: its families and its configs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from torch import nn

from surgeon.families.config import NetworkConfig
from surgeon.families.stack import Stack
from surgeon.families.torchvision import TORCHVISION
from surgeon.families.transformers.fields import MODULE_SETTINGS, TRANSFORMERS_CONFIG
from surgeon.families.transformers.heads import TRANSFORMERS
from surgeon.interfaces.composite import root_of
from surgeon.interfaces.family import ConfigFields, Family
from surgeon.interfaces.hooks import hookimpl

BUILT_IN = (*TORCHVISION, *TRANSFORMERS)
_BUILT_IN_IDS = frozenset(map(id, BUILT_IN))


def families_of(model: nn.Module, families: Sequence[Family] = ()) -> list[Family]:
    """Return the families that ``model`` belongs to, those of plugins first."""
    plugged = [family for family in families if id(family) not in _BUILT_IN_IDS and family.holds(model)]
    return [*plugged, *_built_in(cast("Any", type(model)))]


@lru_cache(maxsize=4096)
def _built_in(cls: type[nn.Module]) -> tuple[Family, ...]:
    return tuple(family for family in BUILT_IN if family.covers(cls))


def config_of(module: nn.Module, families: Sequence[Family] = ()) -> NetworkConfig | None:
    """Return the config of ``module`` with the names of its fields; None if no family declares it.

    Args:
        module: A network or a part of one.
        families: Families that plugins declare.
    """
    attributes = {"config", *(family.config.attribute for family in families if family.config is not None)}
    if not any(hasattr(module, attribute) for attribute in attributes if attribute):
        return None
    fields = next((f.config for f in families_of(module, families) if f.config is not None), None)
    if fields is not None and fields.attribute:
        config = getattr(module, fields.attribute, None)
        return NetworkConfig(config, fields) if _holds_fields(config) else None
    config = getattr(module, "config", None)
    like_transformers = hasattr(config, "to_dict") or hasattr(config, "id2label")
    return NetworkConfig(config, TRANSFORMERS_CONFIG) if like_transformers else None


def settings_of(module: nn.Module, families: Sequence[Family] = ()) -> NetworkConfig:
    """Return the settings that ``module`` keeps as attributes, under the names that its family declares."""
    declared = (f.config for f in families_of(module, families) if f.config is not None and not f.config.attribute)
    return NetworkConfig(module, next(declared, MODULE_SETTINGS))


def configs_in(
    model: nn.Module, families: Sequence[Family] = (), *, around: str | None = None
) -> list[tuple[NetworkConfig, list[nn.Module]]]:
    """Return every config in a module tree, with the modules that have it.

    Parts of a network often have copies of the config under the same attribute. A part's family may declare other
    fields; otherwise those of the whole network apply.

    Args:
        model: The network.
        families: Families that plugins declare.
        around: Only configs of modules that contain this site or are below it.
    """
    attributes: dict[str, ConfigFields] = {}
    for family in families_of(model, families):
        if family.config is not None and family.config.attribute:
            attributes.setdefault(family.config.attribute, family.config)
    attributes.setdefault("config", TRANSFORMERS_CONFIG)
    configs: dict[int, tuple[NetworkConfig, list[nn.Module]]] = {}
    root = root_of(model)
    for name, module in model.named_modules():
        if around is not None and not _is_around(name, around, root):
            continue
        for attribute, fields in attributes.items():
            config: Any = getattr(module, attribute, None)
            if _holds_fields(config) and (fields is not TRANSFORMERS_CONFIG or hasattr(config, "to_dict")):
                special = config_of(module, families)
                adapter = special if special and special.config is config else NetworkConfig(config, fields)
                configs.setdefault(id(config), (adapter, []))[1].append(module)
    return list(configs.values())


def with_config_fields(model: nn.Module, stacks: Sequence[Stack], families: Sequence[Family] = ()) -> list[Stack]:
    """Return the stacks with the config fields that count their blocks."""
    config = config_of(model, families)
    return config.described(stacks) if config is not None else list(stacks)


def _holds_fields(config: Any) -> bool:
    return isinstance(config, dict) or (hasattr(config, "__dict__") and not isinstance(config, (type, nn.Module)))


def _is_around(name: str, site: str, root: str) -> bool:
    """Return whether the module ``name`` contains ``site`` or is below it; modules above ``root`` do not count."""
    holds = not name or f"{site}.".startswith(f"{name}.")
    return (holds and f"{name}.".startswith(root)) or f"{name}.".startswith(f"{site}.")


@hookimpl
def surgeon_families() -> Sequence[Family]:
    """Return the built-in families."""
    return BUILT_IN
