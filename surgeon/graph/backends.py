"""The ways to run a network without its weights, and how it is put back as it was.

A tree is lent for one forward: its tensors are swapped for meta, fake or small random ones, and whatever
the forward leaves behind (buffers, caches, modes, random states) is undone afterwards.
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

REAL_LIMIT = 2**32
"""The bytes of weights up to which a network that runs in no other way is run for real."""
LARGE = 2**18
"""The elements above which the rows of a made-up weight share their memory."""

Stand = Callable[[torch.Tensor, bool], torch.Tensor]
"""What stands in for a tensor; the flag says whether it is a parameter."""


@contextmanager
def lent(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Within it, ``model`` may be run and changed; afterwards it, and every random state, is as before.

    Random states begin alike each time, so that a network that draws what it does is traced the same way twice.
    """
    _forget(model)
    saved = [(module, dict(module.__dict__), _tables(module)) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(0)
            model.train(training)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, attributes, tables in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
            for name, entries in tables.items():
                attributes[name].clear()
                attributes[name].update(entries)
        _forget(model)


def _forget(model: nn.Module) -> None:
    """Empty what methods of its classes remember (``functools.lru_cache``, also where transformers wraps it).

    XCodec keeps lists of its layers so, and SAM 3 its positions: stand-ins, after a trace.
    """
    for cls in {cls for module in model.modules() for cls in type(module).__mro__}:
        for method in list(vars(cls).values()):
            function = getattr(method, "__func__", method)  # that of a static method
            cells = getattr(function, "__closure__", None) or ()
            for each in (function, *(cell.cell_contents for cell in cells if _holds(cell))):
                # asked of its type, since a module in a closure may answer to any name
                if callable(clear := getattr(type(each), "cache_clear", None)):
                    clear(each)


def _holds(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not filled yet
        return False


def _tables(module: nn.Module) -> dict[str, dict[Any, Any]]:
    """Copies of the tables of a module (its parameters, buffers, children, hooks), all of them dicts."""
    return {
        name: OrderedDict(value)
        for name, value in module.__dict__.items()
        if name.startswith("_") and isinstance(value, dict)
    }


def meta_size(model: nn.Module) -> int:
    """The bytes that the tensors of ``model`` come to, each counted once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


@contextmanager
def on_meta(model: nn.Module) -> Iterator[torch.device]:
    """Everything on the meta device, also what a skeleton keeps real."""

    def stand(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")

    _swap(model, stand, attributes=True)
    yield torch.device("meta")


class places_known(TorchDispatchMode):  # type: ignore[no-untyped-call]  # noqa: N801
    """A mask without values, over tokens, is taken to be true in as many places as there are placeholders.

    Networks that put the features of images among words check in one of two ways that both are as many: by taking
    what the mask picks out, or by an assertion about tensors, which has no values to look at.
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
    """Weights that have a shape and pretend to be on the CPU; small real buffers stay real."""
    with _quiet("torch._subclasses.fake_tensor"), FakeTensorMode(allow_non_fake_inputs=True):

        def stand(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
            if not parameter and tensor.device.type == "cpu":
                with unset_fake_temporarily():
                    return tensor.clone()
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")

        _swap(model, stand)
        yield torch.device("cpu")


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Keep a logger from telling of failures that are expected, and reported in one line."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def for_real(model: nn.Module) -> Iterator[torch.device]:
    """Real tensors: the model's own where it has them, small random ones where it has none.

    The rows of a large made-up weight are one and the same, so that it takes no memory.

    Raises:
        MemoryError: The weights would take more than :data:`REAL_LIMIT`.
    """
    size = meta_size(model)
    if size > REAL_LIMIT:
        raise MemoryError(f"it has {size / 2**30:.1f} GB of weights, more than a trace may take")
    real = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
    generator = torch.Generator(real)

    def stand(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        if not tensor.is_meta:
            return tensor if parameter else tensor.clone()
        if not tensor.is_floating_point():
            return torch.zeros_like(tensor, device=real)
        if not parameter:  # running variances must be positive
            return torch.ones_like(tensor, device=real)
        shape = tensor.shape[1:] if tensor.dim() > 1 and tensor.numel() > LARGE else tensor.shape
        values = torch.empty(shape, dtype=tensor.dtype, device=real)
        generator.manual_seed(sum(tensor.shape))  # the same values whatever else the network has lost or gained
        return values.uniform_(-0.05, 0.05, generator=generator).expand(tensor.shape)

    _swap(model, stand)
    yield real


def _swap(model: nn.Module, stand: Stand, *, attributes: bool = False) -> None:
    """Put stand-ins in the place of all tensors; one tensor in two places has one stand-in.

    Args:
        attributes: Also for tensors that are plain attributes, which no device move reaches.
    """
    made: dict[int, torch.Tensor] = {}

    def stood(tensor: torch.Tensor, parameter: bool) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = stand(tensor.detach() if parameter else tensor, parameter)
            if parameter:
                made[id(tensor)] = nn.Parameter(made[id(tensor)], requires_grad=False)
        return made[id(tensor)]

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = stood(parameter, True)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = stood(buffer, False)
        if attributes:
            for name, value in list(module.__dict__.items()):
                if isinstance(value, torch.Tensor):
                    module.__dict__[name] = stood(value, False)
