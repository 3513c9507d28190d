"""Build skeletons: module trees with their parameters and persistent buffers on the meta device.

This takes almost no memory. Parameters are created on meta. Non-persistent buffers (rotary tables, position ids,
masks) and tensors in plain attributes are computed, because checkpoints do not hold them; under a seed, because
some are random.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from surgeon.graph.random_state import seeded

META = re.compile(r"\bmeta\b", re.IGNORECASE)
"""Matches PyTorch's errors about code that reads the values of a meta tensor."""

# Never allocate a tensor with more elements than this while building: a mixture of experts declares parameters of
# 100 GB with torch.zeros. GPT-2's largest mask has 2**20 elements.
HUGE = 2**26
# First try to build without allocating tensors larger than this: the routers of such a mixture take 600 MB.
LARGE = 2**20

_SEED: ContextVar[int] = ContextVar("the seed of skeletons", default=0)


class _ParametersToMeta(TorchFunctionMode):
    """Create large tensors on meta, and uninitialised ones too, because most of them become parameters."""

    def __init__(self, *, allocate: bool) -> None:
        super().__init__()
        self.allocate = allocate
        self.limit = HUGE if allocate else LARGE

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            drawn = args[0] if args else kwargs.get("tensor")
            if isinstance(drawn, torch.Tensor) and drawn.is_meta:
                return drawn
        sized = func is torch.empty or func in _FACTORIES
        if sized and kwargs.get("device") is None and (self._is_spare(func) or _numel(args, kwargs) > self.limit):
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)

    def _is_spare(self, func: Any) -> bool:
        return func is torch.empty and not self.allocate


_DRAWS = frozenset({"normal_", "uniform_", "kaiming_uniform_", "trunc_normal_"})
"""Names of the functions that initialise weights, of ``torch.Tensor`` and ``torch.nn.init``. By name, because
transformers puts functions of its own in place of the latter. On meta they do nothing, but torch takes time for it."""
_FACTORIES = frozenset({torch.zeros, torch.ones, torch.rand, torch.randn})


def _numel(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    size = kwargs.get("size", args)
    try:
        return prod(int(n) for n in (size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size))
    except (TypeError, ValueError):
        return 0  # not a size: PyTorch will raise its own error


@contextmanager
def building(*, allocate: bool = False) -> Iterator[None]:
    """Put parameters of new modules on meta within the block, and keep the RNG state.

    Args:
        allocate: Allocate every tensor that is not huge, and free it when it becomes a parameter. Otherwise allocate
            only initialised tensors that are not large.
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
    """Make a meta tensor of the same class (parameter or not), shape, dtype and ``requires_grad``."""
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def persistent_buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    """Yield every buffer that is in the state dict, with its module and its name in it."""
    for owner in module.modules():
        for name, buffer in owner._buffers.items():
            if buffer is not None and name not in owner._non_persistent_buffers_set:
                yield owner, name, buffer


@contextmanager
def built_under(seed: int) -> Iterator[None]:
    """Set the seed under which :func:`build_skeleton` builds within the block; it is 0 otherwise."""
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)


def build_skeleton(factory: Callable[[], nn.Module]) -> nn.Module:
    """Build a module tree without its weights; the RNG states are kept.

    Args:
        factory: Ordinary code that builds the network. It is called again if it needs real values: if it fills a
            buffer made by ``torch.empty``, or runs the network while building it. Each call draws the same numbers.

    Raises:
        Exception: Any exception that ``factory`` raises.
    """
    for allocate in (False, True):
        try:
            with seeded(_SEED.get()), building(allocate=allocate):
                model = factory()
        except Exception as error:
            if not META.search(str(error)):
                raise
            continue
        if not any(tensor.is_meta for tensor in _transient(model)):
            buffers_to_meta(model)
            return model
    with seeded(_SEED.get()):
        return skeleton_of(factory())


def _transient(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield tensors that checkpoints do not hold: non-persistent buffers and plain attributes."""
    for owner in module.modules():
        for name in owner._non_persistent_buffers_set:
            buffer = owner._buffers.get(name)
            if buffer is not None:
                yield buffer
        yield from (value for value in owner.__dict__.values() if isinstance(value, torch.Tensor))


def buffers_to_meta(model: nn.Module) -> None:
    """Move the persistent buffers of a module tree to meta; a shared buffer stays shared."""
    moved: dict[int, torch.Tensor] = {}
    for owner, name, buffer in list(persistent_buffers(model)):
        if not buffer.is_meta:
            owner._buffers[name] = moved.setdefault(id(buffer), as_meta(buffer))


def skeleton_of(module: nn.Module) -> nn.Module:
    """Copy ``module`` with meta tensors in place of its parameters and persistent buffers.

    Ties, training flags and ``requires_grad`` are kept; ``module`` is not changed.
    """
    memo: dict[int, Any] = {id(p): as_meta(p) for p in module.parameters()}
    memo.update({id(buffer): as_meta(buffer) for _, _, buffer in persistent_buffers(module)})
    return copy.deepcopy(module, memo)
