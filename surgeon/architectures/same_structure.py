"""Tell whether two modules have the same structure, values aside."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

from torch import nn

# State that a forward or a training loop leaves on modules: it says nothing of how they were built.
_TRANSIENT = frozenset({"training", "gradient_checkpointing", "name_or_path", "max_seq_len_cached", "warnings_issued"})


def same_structure(module: nn.Module, skeleton: nn.Module, *, mutable: Collection[str] = ()) -> bool:
    """True when two trees have the same classes, tensors, ties and settings; values are not compared.

    Args:
        module: One of them.
        skeleton: The other.
        mutable: Settings that a forward may have changed, and that say nothing.
    """
    mine, other = (dict(tree.named_modules(remove_duplicate=False)) for tree in (module, skeleton))
    if mine.keys() != other.keys() or _tensors(module) != _tensors(skeleton):
        return False
    return all(
        _class_name(mine[name]) == _class_name(other[name])
        and mine[name].extra_repr() == other[name].extra_repr()
        and settings_of(mine[name], mutable) == settings_of(other[name], mutable)
        for name in mine
    )


def _class_name(module: nn.Module) -> str:
    # By name: torch's parametrize gives every module that it touches a class of its own.
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _tensors(module: nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and first name (equal for tied tensors) of every entry of the state dict."""
    first: dict[int, str] = {}
    return {
        name: (tuple(tensor.shape), first.setdefault(id(tensor), name))
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def settings_of(module: nn.Module, mutable: Collection[str]) -> dict[str, Any]:
    """The plain values that a module is set to, without those that it works out itself when they are asked for."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _TRANSIENT
        and name not in mutable
        and _is_plain(value)
        and not isinstance(getattr(type(module), name, None), cached_property)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (bool, int, float, str))
