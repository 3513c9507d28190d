"""Describe the structure of a network: names, classes and settings of all modules, without values."""

from __future__ import annotations

from hashlib import blake2b
from inspect import isfunction
from typing import Any

from torch import nn

PLAIN = (bool, int, float, str, type(None))
CHANGING = frozenset({"training", "grad_checkpointing"})
"""Settings that do not depend on how a network was built."""


def structure(model: nn.Module) -> str:
    """Return a digest of the classes and plain settings of all modules, and of the shapes of their tensors."""
    digest = blake2b(digest_size=6)
    for name, module in model.named_modules(remove_duplicate=False):
        settings = sorted((key, repr(_plain(value))) for key, value in vars(module).items() if _counts(key, value))
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        digest.update(f"{name}|{kind}|{module.extra_repr()}|{settings}\n".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}|{tuple(tensor.shape)}\n".encode())
    return digest.hexdigest()


def _counts(key: str, value: Any) -> bool:
    return not key.startswith("_") and key not in CHANGING and _is_plain(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN) or isfunction(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.__qualname__ if isfunction(value) else value
