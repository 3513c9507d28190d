"""Compare the structure of two modules, ignoring values."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any

from torch import nn

# Attributes that a forward or training loop sets on modules; they do not depend on how the modules were built.
_TRANSIENT = frozenset({"training", "gradient_checkpointing", "name_or_path", "max_seq_len_cached", "warnings_issued"})


def same_structure(module: nn.Module, skeleton: nn.Module, *, mutable: Collection[str] = ()) -> bool:
    """Return whether two trees have the same classes, tensors, ties and settings; values are not compared.

    Args:
        module: One tree.
        skeleton: The other tree.
        mutable: Settings that a forward may change, which are ignored.
    """
    modules, skeleton_modules = (dict(tree.named_modules(remove_duplicate=False)) for tree in (module, skeleton))
    if modules.keys() != skeleton_modules.keys() or _tensors(module) != _tensors(skeleton):
        return False
    return all(
        _class_name(modules[name]) == _class_name(skeleton_modules[name])
        and modules[name].extra_repr() == skeleton_modules[name].extra_repr()
        and settings_of(modules[name], mutable) == settings_of(skeleton_modules[name], mutable)
        for name in modules
    )


def differing_setting(
    module: nn.Module, skeleton: nn.Module, *, within: Collection[str], mutable: Collection[str] = ()
) -> str | None:
    """Return the first difference in settings between parts of two trees; None if they agree.

    A layer may compute a constant from its position or from a config field when it is built: then layers with equal
    tensor shapes give different outputs.

    Args:
        module: One tree.
        skeleton: The other tree; its names and shapes are compared too.
        within: The sites to compare, with everything below them.
        mutable: Settings that a forward may change, which are ignored.
    """
    modules, skeleton_modules = dict(module.named_modules()), dict(skeleton.named_modules())
    parts = [
        name for name in {**modules, **skeleton_modules} if any(f"{name}.".startswith(f"{site}.") for site in within)
    ]
    for name in parts:
        if name not in modules or name not in skeleton_modules:
            return f"{name} is {'missing' if name not in modules else 'unexpected'}"
        one, two = modules[name], skeleton_modules[name]
        if type(one).__name__ != type(two).__name__:
            return f"{name} is a {type(one).__name__}, not a {type(two).__name__}"
        shapes = [{key: tuple(t.shape) for key, t in (*m._parameters.items(), *m._buffers.items()) if t is not None}
                  for m in (one, two)]  # fmt: skip
        if shapes[0] != shapes[1]:
            return f"the tensors of {name} have other shapes"
        settings = settings_of(one, mutable), settings_of(two, mutable)
        for key in settings[0].keys() & settings[1].keys():
            if settings[0][key] != settings[1][key]:
                return f"{name}.{key} is {settings[0][key]}, not {settings[1][key]}"
    return None


def _class_name(module: nn.Module) -> str:
    # by name: torch's parametrize changes the class of each module that it touches
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _tensors(module: nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and first name (equal for tied tensors) of every entry of the state dict."""
    first: dict[int, str] = {}
    return {
        name: (tuple(tensor.shape), first.setdefault(id(tensor), name))
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def settings_of(module: nn.Module, mutable: Collection[str]) -> dict[str, Any]:
    """Return the plain attribute values of a module, without cached properties."""
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
