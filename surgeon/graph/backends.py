"""Run a forward pass without the model's weights: on meta tensors, under FakeTensorMode, or on small random tensors.

Afterwards the model's tensors, buffers, caches, modes and hooks and the RNG states are restored.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from surgeon.graph.random_state import seeded

REAL_LIMIT = 2**32
"""The most bytes of weights for which a network is run on real tensors, if it runs in no other way."""
LARGE = 2**18
"""The number of elements above which the rows of a random weight share their memory."""

Substitute = Callable[[torch.Tensor, bool], torch.Tensor]
"""Makes the tensor to run with in place of one of the model's; the flag says whether that is a parameter."""


@contextmanager
def restored_after(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Let ``model`` be run and changed within the block, then restore it and the RNG states.

    The RNGs are seeded with 0 in the block, so that a network with random control flow is traced the same way twice.
    """
    _clear_caches(model)
    saved = [(module, dict(module.__dict__), _tables(module)) for module in model.modules()]
    try:
        with seeded(0), torch.no_grad():
            model.train(training)
            yield
    finally:
        for module, attributes, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, entries in tables.items():
                attributes[name].clear()
                attributes[name].update(entries)
        _clear_caches(model)


def _clear_caches(model: nn.Module) -> None:
    """Clear the caches of methods (``functools.lru_cache``, also where transformers wraps it).

    XCodec caches lists of its layers and SAM 3 its positions. After a trace these would hold substituted tensors.
    """
    for cls in {cls for module in model.modules() for cls in type(module).__mro__}:
        for method in list(vars(cls).values()):
            function = getattr(method, "__func__", method)  # that of a static method
            cells = getattr(function, "__closure__", None) or ()
            for cached in (function, *(cell.cell_contents for cell in cells if _holds(cell))):
                # look at the type: a module in a closure may return something for any attribute
                if callable(clear := getattr(type(cached), "cache_clear", None)):
                    clear(cached)


def _holds(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not filled yet
        return False


def _tables(module: nn.Module) -> dict[str, dict[Any, Any]]:
    """Copy the dicts in which a module keeps its parameters, buffers, children and hooks."""
    return {
        name: OrderedDict(value)
        for name, value in module.__dict__.items()
        if name.startswith("_") and isinstance(value, dict)
    }


def meta_size(model: nn.Module) -> int:
    """Sum the bytes of the tensors of ``model``, counting each tensor once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@contextmanager
def on_meta(model: nn.Module) -> Iterator[torch.device]:
    """Put all tensors on the meta device, including the non-persistent buffers that a skeleton keeps real."""

    def substitute(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        # .data: a norm that follows the data writes into its statistics, which must not count as the operation's
        return tensor.data if tensor.is_meta else torch.empty_like(tensor, device="meta")

    _swap(model, substitute, attributes=True)
    yield torch.device("meta")


class assume_placeholders(TorchDispatchMode):  # type: ignore[no-untyped-call]  # noqa: N801
    """Assume that a boolean mask over tokens on the meta device is true at as many places as there are placeholders.

    A network that puts image features at the placeholders in its text checks that there are as many of both. It either
    indexes with the mask, or asserts that two tensors are equal; neither works without values.
    """

    def __init__(self, places: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = places

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._places and func is torch.ops.aten.index.Tensor and len(args[1]) == 1:
            tensor, mask = args[0], args[1][0]
            if mask.is_meta and mask.dtype == torch.bool and mask.dim() in (2, 3):
                shape = [self._places * mask.shape[2]] if mask.dim() == 3 else [self._places, *tensor.shape[2:]]
                return tensor.new_empty(shape)
        if self._places and func is torch.ops.aten._is_all_true.default and args[0].is_meta:
            return torch.ones((), dtype=torch.bool)
        return func(*args, **(kwargs or {}))


@contextmanager
def on_fake(model: nn.Module) -> Iterator[torch.device]:
    """Substitute fake tensors that pretend to be on the CPU; small real buffers stay real."""
    with _quiet("torch._subclasses.fake_tensor"), FakeTensorMode(allow_non_fake_inputs=True):

        def substitute(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
            if not parameter and tensor.device.type == "cpu":
                with unset_fake_temporarily():
                    return tensor.clone()
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

        _swap(model, substitute)
        yield torch.device("cpu")


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Silence a logger about failures that are expected; surgeon reports them in one line."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def for_real(model: nn.Module) -> Iterator[torch.device]:
    """Run on real tensors: the model's own if it has them, else small random values.

    The rows of a large random weight share their memory, so that it takes little.

    Raises:
        MemoryError: The weights would take more than :data:`REAL_LIMIT`.
    """
    size = meta_size(model)
    if size > REAL_LIMIT:
        raise MemoryError(f"it has {size / 2**30:.1f} GB of weights, more than a trace may take")
    real = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    generator = torch.Generator(real)

    def substitute(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor if parameter else tensor.clone()
        if not tensor.is_floating_point():
            return torch.zeros_like(tensor, device=real)
        if not parameter:  # running variances must be positive
            return torch.ones_like(tensor, device=real)
        shape = tensor.shape[1:] if tensor.dim() > 1 and tensor.numel() > LARGE else tensor.shape
        values = torch.empty(shape, dtype=tensor.dtype, device=real)
        generator.manual_seed(sum(tensor.shape))  # the same values, whichever other modules the network has
        return values.uniform_(-0.05, 0.05, generator=generator).expand(tensor.shape)

    _swap(model, substitute)
    yield real


def _swap(model: nn.Module, substitute: Substitute, *, attributes: bool = False) -> None:
    """Substitute all tensors of a model; a tied tensor has one substitute.

    Args:
        attributes: Substitute tensors that are plain attributes too, which ``Module.to`` does not move.
    """
    substitutes: dict[int, torch.Tensor] = {}

    def substituted(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        if id(tensor) not in substitutes:
            substitutes[id(tensor)] = substitute(tensor.detach() if parameter else tensor, parameter)
            if parameter:
                substitutes[id(tensor)] = nn.Parameter(substitutes[id(tensor)], requires_grad=False)
        return substitutes[id(tensor)]

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = substituted(parameter, True)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = substituted(buffer, False)
        if attributes:
            for name, value in list(module.__dict__.items()):
                if isinstance(value, torch.Tensor):
                    module.__dict__[name] = substituted(value, False)
