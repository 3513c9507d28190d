"""Check the modules that operations put into a network: what they hold, and whether they can be copied and saved."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import nn

from surgeon.interfaces.returned import is_ours
from surgeon.pipeline.api import apply
from surgeon.surgery.module_state import HOOK_TABLES, INTERNAL
from surgeon.testing.runs import SEED, Case


def check_tree(case: Case) -> None:
    """Check the new modules one by one.

    Raises:
        AssertionError: One cannot be copied, moved or saved with the network; the message says how to mend it.
    """
    for site, module in case.added().items():
        _check_class(site, module, case)
        _check_forward(site, module)
        check_tensors(site, module)
    # transformers adds hooks of its own to a network that has run
    _check_hooks(replace(case, edited=apply(case.original, case.operations, seed=SEED)))
    _check_pickle(case)


def _check_class(site: str, module: nn.Module, case: Case) -> None:
    kind = type(module)
    if "<locals>" in kind.__qualname__ and not is_ours(module):
        raise AssertionError(
            f"{site} is a {kind.__name__}, a class that is defined inside a function: no other process can find it, so "
            "that the network cannot be pickled. Define the class at the top of its module."
        )


def _check_forward(site: str, module: nn.Module) -> None:
    if "forward" in vars(module):
        raise AssertionError(
            f"the forward of {site} is replaced by a function on the instance: copies and saved networks keep the one "
            "of the class, or share the function. Write a class with that forward, and put it there with "
            "surgery.replace or surgery.insert."
        )


def check_tensors(site: str, module: nn.Module) -> None:
    """Refuse tensors that a new module holds outside its parameters and buffers.

    Raises:
        AssertionError: It holds one.
    """
    if is_ours(module):
        return
    for name, value in vars(module).items():
        if name in INTERNAL:
            continue
        tensors = list(_tensors(value))
        if tensors:
            raise AssertionError(
                f"{site}.{name} holds a plain tensor of shape {tuple(tensors[0].shape)}: to(device) and half() pass it "
                "by, and no state dict has it. Use nn.Parameter, or self.register_buffer"
                f"({name!r}, …); persistent=False if it follows from the module's arguments."
            )


def _check_hooks(case: Case) -> None:
    inside = {id(module) for model in (case.original, case.edited) for module in model.modules()}
    before = {name: len(_stray_hooks(module, inside)) for name, module in case.original.named_modules()}
    for name, module in case.edited.named_modules():
        stray = _stray_hooks(module, inside)
        if len(stray) > before.get(name, 0):
            hook = getattr(stray[-1], "__qualname__", type(stray[-1]).__name__)
            raise AssertionError(
                f"a hook on {name or 'the network'} is {hook}, not a method of a module of the network: a copy of the "
                "network would share what it refers to, and no saved network has it. Make it a method of a module that "
                "is in the network, and register it with surgery.hook(site, module.method)."
            )


def _stray_hooks(module: nn.Module, inside: set[int]) -> list[Any]:
    """The hooks of a module that are not methods of modules of its network, whose ids are ``inside``."""
    tables = [getattr(module, table) for table in HOOK_TABLES]
    hooks = [hook for table in tables if hasattr(table, "values") for hook in table.values()]
    return [h for h in hooks if callable(h) and id(getattr(h, "__self__", None)) not in inside]


def _check_pickle(case: Case) -> None:
    if _pickles(case.edited) is None or _pickles(case.original) is not None:
        return
    for site, module in case.added().items():
        for name, value in vars(module).items():
            if name not in INTERNAL and (reason := _pickles(value)) is not None:
                raise AssertionError(
                    f"{site}.{name} cannot be pickled ({reason}), so that the network cannot be saved whole, sent to "
                    "another process or trained on several devices. Keep plain values; a function at the top of a "
                    "module instead of a lambda, a path instead of an open file."
                )
    raise AssertionError(f"the edited network cannot be pickled: {_pickles(case.edited)}")


def _pickles(value: Any) -> str | None:
    try:
        pickle.dumps(value)
    except Exception as error:  # whatever a __reduce__ raises
        return f"{type(error).__name__}: {error}"
    return None


def _tensors(value: Any, depth: int = 3) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        items = value
    elif not isinstance(value, (nn.Module, type, ModuleType)):
        items = getattr(value, "__dict__", {}).values()
    return [tensor for item in list(items) for tensor in _tensors(item, depth - 1)] if depth else []
