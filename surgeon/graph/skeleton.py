"""Skeletons: module trees with their parameters and persistent buffers on the meta device.

Building one costs no memory: parameters are born on meta, while non-persistent buffers (rotary tables,
position ids, masks) are computed for real, since no checkpoint holds them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

META = re.compile(r"\bmeta\b", re.IGNORECASE)
"""What PyTorch's messages have in common where code asks a meta tensor for values."""

# A tensor past this many elements is never worth allocating while a tree is built: a mixture of experts
# declares parameters of 100 GB by torch.zeros. GPT-2's largest mask has 2**20.
HUGE = 2**26
# One past this many is tried without values first: the routers of such a mixture come to 600 MB.
LARGE = 2**20


class _ParametersToMeta(TorchFunctionMode):
    """Large tensors are created on meta, and uninitialised ones too, since as a rule they become parameters."""

    def __init__(self, *, allocate: bool) -> None:
        super().__init__()
        self.allocate = allocate
        self.limit = HUGE if allocate else LARGE

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS and (drawn := args[0] if args else kwargs["tensor"]).is_meta:
            return drawn
        sized = func is torch.empty or func in _FACTORIES
        if sized and kwargs.get("device") is None and (self._is_spare(func) or _numel(args, kwargs) > self.limit):
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)

    def _is_spare(self, func: Any) -> bool:
        return func is torch.empty and not self.allocate


_DRAWS = frozenset(
    {torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}
)
"""What initialises weights: there is nothing to do on meta, and to find that out torch imports sympy."""
_FACTORIES = frozenset({torch.zeros, torch.ones, torch.rand, torch.randn})


def _numel(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    size = kwargs.get("size", args)
    try:
        return prod(int(n) for n in (size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size))
    except (TypeError, ValueError):
        return 0  # no size, as PyTorch will say itself


@contextmanager
def building(*, allocate: bool = False) -> Iterator[None]:
    """Within it, parameters of new modules are on meta and the random state is left as it was.

    Args:
        allocate: Make every tensor that is not huge for real, and let go of it when it becomes a parameter; else only
            those that are not large, nor uninitialised.
    """
    moved: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def to_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None
        if parameter not in moved:  # one object registered twice is a tie, and stays one
            moved[parameter] = as_meta(parameter)
        return moved[parameter]  # type: ignore[no-any-return]

    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        with torch.random.fork_rng(devices=[]), _ParametersToMeta(allocate=allocate):
            yield
    finally:
        handle.remove()


def as_meta(tensor: torch.Tensor) -> torch.Tensor:
    """A meta tensor of the same class (parameter or not), shape, dtype and ``requires_grad``."""
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def persistent_buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Every buffer that a state dict holds, with the module and the name that it is registered under."""
    for owner in module.modules():
        for name, buffer in owner._buffers.items():
            if buffer is not None and name not in owner._non_persistent_buffers_set:
                yield owner, name, buffer


def build_skeleton(factory: Callable[[], nn.Module]) -> nn.Module:
    """Build a module tree without its weights.

    Args:
        factory: Ordinary code that builds the network. It is called again where that cannot be done without
            values: it fills a buffer made by ``torch.empty``, or runs the network while it builds it.

    Raises:
        Exception: Whatever ``factory`` raises.
    """
    for allocate in (False, True):
        try:
            with building(allocate=allocate):
                model = factory()
        except Exception as error:
            if not META.search(str(error)):
                raise
            continue
        if not any(tensor.is_meta for tensor in _transient(model)):
            buffers_to_meta(model)
            return model
    with torch.random.fork_rng(devices=[]):
        return skeleton_of(factory())


def _transient(module: nn.Module) -> Iterator[torch.Tensor]:
    """What no file brings the values of: buffers that are not saved, and tensors that are plain attributes."""
    for owner in module.modules():
        for name in owner._non_persistent_buffers_set:
            buffer = owner._buffers.get(name)
            if buffer is not None:
                yield buffer
        yield from (value for value in owner.__dict__.values() if isinstance(value, torch.Tensor))


def buffers_to_meta(model: nn.Module) -> None:
    """Move the persistent buffers of a tree to meta; one object in two places stays one object."""
    moved: dict[int, torch.Tensor] = {}
    for owner, name, buffer in list(persistent_buffers(model)):
        if not buffer.is_meta:
            owner._buffers[name] = moved.setdefault(id(buffer), as_meta(buffer))


def skeleton_of(module: nn.Module) -> nn.Module:
    """A deep copy of ``module`` whose parameters and persistent buffers are meta tensors.

    Ties, training flags and ``requires_grad`` are kept; ``module`` is not touched.
    """
    memo: dict[int, Any] = {id(p): as_meta(p) for p in module.parameters()}
    memo.update({id(buffer): as_meta(buffer) for _, _, buffer in persistent_buffers(module)})
    return copy.deepcopy(module, memo)
