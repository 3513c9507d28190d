"""Find the main tensor of a module's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

PRINCIPAL = ("last_hidden_state", "logits", "out")


def main_tensor(output: Any) -> torch.Tensor | None:
    """Get the main tensor of a module's output, or None.

    It is the output itself if that is a tensor; the first tensor of a tuple or list; of a mapping (a transformers
    ``ModelOutput``, an ``OrderedDict``) ``last_hidden_state``, ``logits`` or ``out``, else the first tensor.
    """
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        named = [output[name] for name in PRINCIPAL if name in output]
        return _first([*named, *output.values()])
    if isinstance(output, (tuple, list)):
        return _first(output)
    return None


def with_main_tensor(output: Any, tensor: torch.Tensor) -> Any:
    """Replace the main tensor of ``output``; tuples, lists and mappings keep their class."""
    if isinstance(output, torch.Tensor):
        return tensor
    main = main_tensor(output)
    if isinstance(output, Mapping):
        changed: Any = type(output)(**output) if hasattr(output, "to_tuple") else dict(output)
        for name, value in output.items():
            if value is main:
                changed[name] = tensor
        return changed
    if isinstance(output, (tuple, list)):
        items = [tensor if item is main else item for item in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    return output


def _first(values: Any) -> torch.Tensor | None:
    for value in values:
        if isinstance(value, torch.Tensor):
            return value
    return None
