"""List the tensors of a network by name, resolve ties, and fill them with values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from surgeon.graph.skeleton import persistent_buffers

if TYPE_CHECKING:
    pass


ALIGNMENT = 16
"""The bytes that the address of a tensor is a multiple of."""


def tensors_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and persistent buffer with its first name, a tied one once, in the order of the tree."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or name in module._non_persistent_buffers_set or id(tensor) in seen:
                continue
            seen.add(id(tensor))
            yield dot + name, tensor


def aliases_of(model: nn.Module) -> dict[str, str]:
    """The further names of tied tensors: ``{"lm_head.weight": "transformer.wte.weight"}``."""
    first: dict[int, str] = {}
    further: dict[str, str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and name not in module._non_persistent_buffers_set:
                known = first.setdefault(id(tensor), dot + name)
                if known != dot + name:
                    further[dot + name] = known
    return further


def fill(model: nn.Module, values: Callable[[str], torch.Tensor], names: Sequence[str] | None = None) -> None:
    """Put real values in the place of the tensors ``names`` (all, if None); ties and flags are kept."""
    wanted = None if names is None else set(names)
    real: dict[int, torch.Tensor] = {}
    for name, tensor in tensors_of(model):
        if wanted is not None and name not in wanted:
            continue
        value = _aligned(values(name))
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        real[id(tensor)] = value
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in real:
                setattr(module, name, real[id(parameter)])  # not _parameters: an LSTM keeps a list beside it
    for owner, name, buffer in list(persistent_buffers(model)):
        if id(buffer) in real:
            owner._buffers[name] = real[id(buffer)]


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor where kernels work at their best: a file's mapping gives addresses at which convolutions take
    another way through the sum, and the last bit of an output would depend on where its weights came from."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
