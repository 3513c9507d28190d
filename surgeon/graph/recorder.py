"""Record which modules of a network run, in which order, and what they produce."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils import _pytree

from surgeon.interfaces.composite import composite_of
from surgeon.nn.features import main_tensor
from surgeon.nn.grafts import Tap


@dataclass(frozen=True)
class TensorSpec:
    """Hold the shape and dtype of a tensor that a module produced."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass
class Visit:
    """Describe the calls of one site during a trace.

    Attributes:
        site: Its address; the first one if the module has several.
        calls: How often it was called.
        started: The index of the event of its first call.
        finished: The indices of the events at which its calls returned; empty if the forward ended inside it.
        output: What its last call returned, with a :class:`TensorSpec` in place of each tensor and the name of its
            class in place of anything else.
        overwritten: A later module wrote in place into the tensor that the site produced.
    """

    site: str
    calls: int = 0
    started: int = 0
    finished: list[int] = field(default_factory=list)
    output: Any = None
    overwritten: bool = False


class Recorder:
    """Record the calls of one network's modules through hooks."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names: dict[int, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self._names.setdefault(id(module), []).append(name)
        self.visits: dict[str, Visit] = {}
        self._accessed: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self._produced: list[tuple[str, torch.Tensor, int]] = []
        self._events = 0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls of all modules, and the lookups of their parameters, buffers and children."""
        original = nn.Module.__getattr__

        def reading(module: nn.Module, name: str) -> Any:
            value = original(module, name)
            self._use(module)
            if isinstance(value, nn.Module):
                self._access(value)
            return value

        handles = [
            register_module_forward_pre_hook(self._start),
            register_module_forward_hook(self._finish),
        ]
        for module in self._model.modules():
            if module._forward_hooks:
                self._record_last(module)
        nn.Module.__getattr__ = reading  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__getattr__ = original  # type: ignore[method-assign]
            for handle in handles:
                handle.remove()

    def _record_last(self, module: nn.Module) -> None:
        """Record the output after the module's hooks have changed it, but before one of them ends the forward."""
        hooks = cast("OrderedDict[int, Any]", module._forward_hooks)
        keys = list(hooks)
        owners = [getattr(hook, "__self__", None) for hook in hooks.values()]
        exits = [isinstance(owner, Tap) and owner.exits for owner in owners]
        module.register_forward_hook(self._finish_again)
        for key in keys[exits.index(True) :] if True in exits else ():
            hooks.move_to_end(key)

    def _event(self) -> int:
        self._events += 1
        return self._events

    def _access(self, module: nn.Module) -> None:
        if id(module) in self._names and id(module) not in self._accessed:
            self._accessed[id(module)] = self._event()

    def _use(self, module: nn.Module) -> None:
        self._access(module)
        if id(module) in self._names and id(module) not in self._used:
            # This is a new event. With the index of the lookup, a module that was looked up early and called after
            # another one would count as used before that other one finished.
            self._used[id(module)] = self._event()

    def _start(self, module: nn.Module, args: Any) -> None:
        if id(module) not in self._names:
            return
        self._use(module)
        site = self._names[id(module)][0]
        visit = self.visits.setdefault(site, Visit(site))
        visit.started = visit.started or self._event()
        visit.calls += 1
        self._use_choices(module)

    def _use_choices(self, module: nn.Module) -> None:
        """Count all alternative parts of a composite as used: it runs only some of them, but may run any."""
        for choice in composite_of(module).choices:
            part = module
            for name in choice.split("."):
                part = part._modules.get(name) or nn.Module()
                self._use(part)
            for inner in part.modules():
                self._use(inner)

    def _finish(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in self._names:
            return
        site = self._names[id(module)][0]
        visit = self.visits[site]
        visit.finished.append(self._event())
        visit.output = _pytree.tree_map(_spec, output)
        tensor = main_tensor(output)
        self.shapes[site] = None if tensor is None else tuple(tensor.shape)
        if tensor is not None:
            self._produced.append((site, tensor, tensor._version))

    def _finish_again(self, module: nn.Module, args: Any, output: Any) -> None:
        site = self._names[id(module)][0]
        self.visits[site].finished.pop()
        if self._produced and self._produced[-1][0] == site:
            self._produced.pop()
        self._finish(module, args, output)

    def mark_overwritten(self) -> None:
        """Mark the sites whose output was later written to in place; views share their version counter."""
        for site, tensor, version in self._produced:
            self.visits[site].overwritten |= tensor._version != version
        self._produced.clear()

    @property
    def order(self) -> list[str]:
        """List the sites in the order in which their last calls finished."""
        completed = [visit for visit in self.visits.values() if visit.finished]
        return [visit.site for visit in sorted(completed, key=lambda visit: visit.finished[-1])]

    @property
    def accessed(self) -> dict[str, int]:
        """Map sites that were called or read, under all of their names, to the index of the first such event."""
        return self._by_name(self._accessed)

    @property
    def used(self) -> dict[str, int]:
        """Map sites that were called or read to the index of the first such event, not counting mere lookups."""
        return self._by_name(self._used)

    def _by_name(self, events: dict[int, int]) -> dict[str, int]:
        return {name: event for key, event in events.items() for name in self._names[key]}


def _spec(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return TensorSpec(tuple(value.shape), value.dtype)
    return type(value).__name__
