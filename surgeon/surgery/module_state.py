"""Compare what a network is besides its tensors: classes, settings, hooks, modes, and the fields of its configs.

A module's own attributes are compared by value, lists and mappings with what they hold; a config or another plain
object that a module refers to is compared field by field, once, however many modules share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
import xxhash
from torch import nn

CLASS = "__class__"
TRAINING = "training"
HOOKS = "hooks"
CLASS_METHODS = "methods of its class"
INTERNAL = frozenset(vars(nn.Module()))
"""What ``nn.Module`` keeps in every module: its tables of parameters, buffers, children and hooks, and its mode."""
HOOK_TABLES = tuple(name for name in INTERNAL if name.endswith("_hooks"))

_VALUES = frozenset({int, float, bool, str, bytes, complex, type(None), torch.dtype, torch.device, torch.Size, type})
_CODE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType)
_DEPTH = 3
"""How many objects deep settings are followed: a module's config, the config of a part in it."""
_LENGTH = 10_000
"""The longest list or mapping whose items are compared."""

Key = tuple[int, str]
"""The ``id`` of a module or config, and the name of one of its attributes; or :data:`CLASS`, :data:`HOOKS`."""


@dataclass(frozen=True)
class Change:
    """One attribute of a module or config that has another value.

    Attributes:
        holder: The module or config.
        site: The module, or the module through which the config was reached.
        within: The path from that module to the config; empty for the module itself.
        name: The attribute.
        old: Its value before, for a message; None if there was none.
        new: Its value afterwards.
    """

    holder: Any
    site: str
    within: str
    name: str
    old: str | None
    new: str | None

    @property
    def key(self) -> Key:
        """What the journal claims it by."""
        return id(self.holder), self.name

    @property
    def attribute(self) -> str:
        """The path of the attribute from its module, as ``surgery.set`` takes it."""
        return f"{self.within}.{self.name}".lstrip(".")

    def __str__(self) -> str:
        """Name the attribute and both values."""
        where = self.site or "the network"
        if self.name == CLASS:
            return f"the class of {where}, {self.old} → {self.new}"
        if self.name == HOOKS:
            return f"the hooks of {where}"
        place = f"{self.site}.{self.attribute}".lstrip(".")
        if self.name == CLASS_METHODS:
            return f"the method {self.new}, a class of {where}, in the whole process"
        if self.old == self.new:
            return f"what {place} holds, {self.new}"
        if self.old is None or self.new is None:
            return f"{place}, which is {'new' if self.old is None else 'gone'}"
        return f"{place}, {self.old} → {self.new}"


@dataclass(frozen=True)
class _Holder:
    value: Any
    site: str
    within: str
    state: dict[str, Any]


class ModuleStates:
    """The settings of modules, and of the configs that they refer to, at one moment.

    Args:
        modules: The modules by their sites, as ``named_modules`` yields them.
    """

    def __init__(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        self._holders: dict[int, _Holder] = {}
        self._by_class: dict[type, dict[tuple[type, str], Any]] = {}
        for site, module in modules:
            attributes = module.__dict__
            state: dict[str, Any] = {
                name: value if type(value) in _VALUES else self._frozen(value, site, name, _DEPTH)
                for name, value in attributes.items()
                if name not in INTERNAL
            }
            state[CLASS] = type(module)
            state[CLASS_METHODS] = self._methods(type(module))
            state[TRAINING] = module.training
            if hooked := [table for name in HOOK_TABLES if (table := attributes.get(name))]:
                state[HOOKS] = (list, *[hook for table in hooked for hook in table.values()])
            for name in module._non_persistent_buffers_set:
                if (buffer := module._buffers.get(name)) is not None:
                    state[name] = _tensor(buffer)
            self._holders[id(module)] = _Holder(module, site, "", state)

    def changes(self, after: ModuleStates) -> Iterator[Change]:
        """Yield what differs in modules and configs that were there before and still are."""
        for key, holder in self._holders.items():
            now = after._holders.get(key)
            if now is None or now.state == holder.state:
                continue
            other_class = holder.state.get(CLASS) is not now.state.get(CLASS)
            for name in {**holder.state, **now.state}:
                if name == CLASS_METHODS and other_class:
                    continue
                old, new = holder.state.get(name, _ABSENT), now.state.get(name, _ABSENT)
                if old is new or old == new:
                    continue
                if name == CLASS_METHODS:
                    cls, method = next(key for key in {**old, **new} if old.get(key) is not new.get(key))
                    yield Change(now.value, now.site, now.within, name, None, f"{method} of {cls.__name__}")
                else:
                    yield Change(now.value, now.site, now.within, name, _as_text(old), _as_text(new))

    def restore(self, after: ModuleStates) -> None:
        """Give modules back the attributes that differ ``after`` they ran: caches of what a forward computed.

        Modes, hooks and classes stay, and so do objects whose content has no copy here.
        """
        for key, holder in self._holders.items():
            now = after._holders.get(key)
            module = holder.value
            if now is None or now.state == holder.state or not isinstance(module, nn.Module):
                continue
            for name in {**holder.state, **now.state}:
                old, new = holder.state.get(name, _ABSENT), now.state.get(name, _ABSENT)
                if name in (CLASS, CLASS_METHODS, TRAINING, HOOKS) or old is new or old == new:
                    continue
                table = module._buffers if name in module._buffers else module.__dict__
                if old is _ABSENT:
                    table.pop(name, None)
                elif isinstance(value := _thawed(old), dict) and isinstance(cache := table.get(name), dict):
                    cache.clear()  # others may refer to the same mapping
                    cache.update(value)
                elif isinstance(value, list) and isinstance(items := table.get(name), list):
                    items[:] = value
                else:
                    table[name] = value

    def _methods(self, cls: type) -> dict[tuple[type, str], Any]:
        """Return the functions of a class and of its parents below ``nn.Module``, by the class that has each."""
        if cls not in self._by_class:
            parents = cls.__mro__[: cls.__mro__.index(nn.Module)]
            named = ((c, name, value) for c in parents for name, value in vars(c).items())
            self._by_class[cls] = {(c, name): value for c, name, value in named if isinstance(value, FunctionType)}
        return self._by_class[cls]

    def _frozen(self, value: Any, site: str, path: str, depth: int) -> Any:
        """Return something that equals the same of later if and only if ``value`` is then what it is now."""
        kind = type(value)
        if kind in _VALUES:
            return value
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if kind in (list, tuple, set, frozenset) and len(value) <= _LENGTH:
            return (kind, *[self._frozen(item, site, path, depth) for item in value])
        if isinstance(value, dict) and len(value) <= _LENGTH:
            return (kind, *[(key, self._frozen(item, site, path, depth)) for key, item in value.items()])
        if isinstance(value, (list, tuple, set, frozenset, deque)) and len(value) <= _LENGTH:
            return (_REFERENCE, *[self._frozen(item, site, path, depth) for item in value], value)
        if isinstance(value, partial):
            parts = (value.func, value.args, value.keywords)
            return (_REFERENCE, *[self._frozen(part, site, path, depth) for part in parts], value)
        if (content := _content(value)) is not None:
            return (_REFERENCE, id(value), content, value)
        if depth and id(value) not in self._holders and not isinstance(value, (nn.Module, *_CODE)):
            fields = _fields(value)
            if fields:
                self._holders[id(value)] = _Holder(value, site, path, state := {})
                for name, item in list(fields.items()):
                    state[name] = self._frozen(item, site, f"{path}.{name}", depth - 1)
        return (_REFERENCE, id(value), value)


def _content(value: Any) -> bytes | None:
    """Return the bytes of an array of numpy or of ``array``, which can be changed in place."""
    try:
        view = memoryview(value)
        return bytes(view) if view.nbytes <= _LENGTH * 8 else None
    except (TypeError, ValueError, NotImplementedError, BufferError):  # not an array, or one of Python objects
        return None


def _fields(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too."""
    slots = [name for cls in type(value).__mro__ for name in _names(getattr(cls, "__slots__", ()))]
    slot_values = {name: getattr(value, name) for name in slots if name != "__dict__" and hasattr(value, name)}
    return {**slot_values, **(vars(value) if isinstance(getattr(value, "__dict__", None), dict) else {})}


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


class _Mark:
    """A value that equals itself alone."""

    def __init__(self, text: str) -> None:
        self.text = text


_ABSENT = _Mark("nothing")
_REFERENCE = _Mark("the same object")


def version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to, as autograd counts it; 0 for an inference tensor, which is not counted."""
    return 0 if tensor.is_inference() else tensor._version


def _tensor(tensor: torch.Tensor) -> Any:
    return (_REFERENCE, id(tensor), version(tensor), _digest(tensor), tensor)


def _digest(tensor: torch.Tensor) -> str:
    """Digest the values of a tensor: writes through ``tensor.data`` are not counted in its version."""
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
        return ""
    values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return xxhash.xxh3_64_hexdigest(values.numpy().data)


def _as_text(frozen: Any) -> str | None:
    """Format a frozen value."""
    if frozen is _ABSENT:
        return None
    value = _thawed(frozen)
    text = value.__name__ if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _thawed(frozen: Any) -> Any:
    if not isinstance(frozen, tuple) or isinstance(frozen, torch.Size):
        return frozen
    kind, *items = frozen
    if kind is _REFERENCE:
        return items[-1]
    if kind in (list, tuple, set, frozenset):
        return kind(_thawed(item) for item in items)
    return {key: _thawed(item) for key, item in items}
