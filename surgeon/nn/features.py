"""The one tensor that stands for what a module returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

PRINCIPAL = ("last_hidden_state", "logits", "out")


def main_tensor(output: Any) -> torch.Tensor | None:
    """The tensor that stands for a module's output; None where there is none.

    A tensor is its own; a tuple or list gives its first tensor; a mapping (a transformers ``ModelOutput``,
    an ``OrderedDict``) gives ``last_hidden_state``, ``logits`` or ``out``, else its first tensor.
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
    """``output`` with its main tensor replaced; tuples, lists and mappings keep their class."""
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
