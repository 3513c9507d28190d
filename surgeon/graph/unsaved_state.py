"""List the tensors of a network that no state dict holds: they come from its code alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

DEPTH = 6
"""Levels of lists and dicts inside an attribute that are looked into."""


def unsaved_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """List non-persistent buffers, and tensors and arrays in plain attributes, in lists and in dicts, by their address.

    What a forward pass left behind is not listed: tensors on the meta device, and those with a gradient function.

    Returns:
        The tensors, by addresses like ``encoder.mask`` and ``encoder.tables['long'][0]``.
    """
    listed: dict[str, torch.Tensor] = {}
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        saved = {id(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())}
        for name in sorted(module._non_persistent_buffers_set):
            if (buffer := module._buffers.get(name)) is not None and not buffer.is_meta:
                listed[dot + name] = buffer
        for name, value in module.__dict__.items():
            if name not in _TABLES:
                listed |= {address: t for address, t in _tensors(value, dot + name, DEPTH) if id(t) not in saved}
    return listed


_TABLES = frozenset(nn.Module().__dict__)
"""What every module has: its parameters, buffers, children and hooks."""


def _tensors(value: Any, at: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if not (value.is_meta or isinstance(value, nn.Parameter) or value.grad_fn is not None):
            yield at, value
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        yield at, torch.from_numpy(np.array(value, copy=True, order="C"))
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{at}[{key!r}]", depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _tensors(item, f"{at}[{index}]", depth - 1)
