"""List the tensors of a network by name, resolve ties, and fill them with values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from surgeon.graph.skeleton import persistent_buffers

ALIGNMENT = 16
"""The bytes of which the address of a tensor's data must be a multiple."""


def tensors_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and persistent buffer with its first name, a tied one once, in the order of the tree."""
    yielded: set[int] = set()
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or name in module._non_persistent_buffers_set or id(tensor) in yielded:
                continue
            yielded.add(id(tensor))
            yield dot + name, tensor


def aliases_of(model: nn.Module) -> dict[str, str]:
    """Map the further names of tied tensors to the first: ``{"lm_head.weight": "transformer.wte.weight"}``."""
    first: dict[int, str] = {}
    further: dict[str, str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and name not in module._non_persistent_buffers_set:
                original = first.setdefault(id(tensor), dot + name)
                if original != dot + name:
                    further[dot + name] = original
    return further


def fill(model: nn.Module, values: Callable[[str], torch.Tensor], names: Sequence[str] | None = None) -> None:
    """Replace the tensors ``names`` (all, if None) by real values; ties and ``requires_grad`` are kept."""
    selected = None if names is None else set(names)
    real: dict[int, torch.Tensor] = {}
    for name, tensor in tensors_of(model):
        if selected is not None and name not in selected:
            continue
        value = _aligned(values(name))
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        real[id(tensor)] = value
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in real:
                setattr(module, name, real[id(parameter)])  # not _parameters: an LSTM keeps a list of its weights too
    for owner, name, buffer in list(persistent_buffers(model)):
        if id(buffer) in real:
            owner._buffers[name] = real[id(buffer)]


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor whose data is not aligned, as in a memory-mapped file.

    Convolution kernels sum unaligned data in another order, so that the last bit of an output would depend on where
    the weights came from.
    """
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
