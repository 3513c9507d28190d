"""Distinguish torchvision's networks by digests of their keys and shapes, stored in ``fingerprints.json``.

A digest is a sum over keys, so the keys of a head can be subtracted, whatever their shapes and whether or not they are
present. Regenerate the file after an upgrade of torchvision:

    python -m surgeon.architectures.make_fingerprints
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from math import isqrt
from typing import TYPE_CHECKING, Any

from surgeon.architectures.fit import COUNTER
from surgeon.interfaces.architecture import Shapes

if TYPE_CHECKING:
    from torch import nn

FILE = "fingerprints.json"
MASK = 2**64 - 1


@dataclass(frozen=True)
class Row:
    """One variant of one builder."""

    name: str
    options: dict[str, Any]
    module: str
    """The class of the builder's network."""
    trunk: int
    """The digest of keys whose shapes no option changes."""
    body: int
    """The digest of keys outside the top-level modules with class-dependent tensors."""
    tensors: int
    children: str
    """The names of the top-level modules, in order."""
    free: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Option → key → (the dimension that it sets, the factor); factor 0 for a position embedding."""
    defaults: dict[str, int] = field(default_factory=dict)

    @property
    def heads(self) -> set[str]:
        """The top-level modules with class-dependent tensors."""
        return {top_of(key) for key in self.free.get("num_classes", {})}

    def has_trunk_of(self, keys: Keys) -> bool:
        """Return whether ``keys``, without those whose shapes depend on options, are this variant's."""
        free = {key for shaped in self.free.values() for key in shaped}
        return keys.without(free) == self.trunk

    def has_body_of(self, keys: Keys) -> bool:
        """Return whether ``keys`` are this variant's without its heads."""
        return bool(self.heads) and keys.total == self.body

    def read_options(self, shapes: Shapes) -> dict[str, Any] | None:
        """Return the options that give tensors of these shapes; None if two tensors disagree."""
        options: dict[str, Any] = {}
        for option, shaped in self.free.items():
            values = {_read(shapes, key, *shaped[key]) for key in shaped if key in shapes}
            if len(values) > 1 or None in values:
                return None
            if values:
                options[option] = values.pop()
        return {option: value for option, value in options.items() if value != self.defaults.get(option)}


class Keys:
    """The digest of a set of keys and shapes."""

    def __init__(self, shapes: Shapes) -> None:
        self.digests = {key: digest(key, shape) for key, shape in shapes.items() if not COUNTER.search(key)}
        self.total = sum(self.digests.values()) & MASK
        self.tops = {top_of(key) for key in self.digests}

    def without(self, keys: set[str]) -> int:
        """Return the digest without the keys in ``keys``."""
        return (self.total - sum(self.digests.get(key, 0) for key in keys)) & MASK


def digest(key: str, shape: tuple[int, ...]) -> int:
    """Hash a key and its shape to 64 bits."""
    text = f"{key} {list(shape)}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def top_of(key: str) -> str:
    """Return the top-level module of a key."""
    return key.partition(".")[0]


def class_name(module: nn.Module) -> str:
    """Return the full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _read(shapes: Shapes, key: str, dimension: int, factor: int) -> int | None:
    if dimension >= len(shapes[key]):
        return None
    size = shapes[key][dimension]
    if factor:
        return size // factor if size % factor == 0 and size else None
    # ViT's position embedding: one row per patch of a square image, and one for the class token
    side = isqrt(size - 1)
    patch = shapes.get("conv_proj.weight", (0,))[-1]
    return side * patch if side * side == size - 1 and patch else None


@cache
def table() -> tuple[Row, ...]:
    """Return the stored rows: plain builders before their twins."""
    text = files("surgeon.architectures").joinpath(FILE).read_text(encoding="utf-8")
    rows = [Row(**{**row, "trunk": int(row["trunk"], 16), "body": int(row["body"], 16)}) for row in json.loads(text)]
    return tuple(sorted(rows, key=lambda row: (is_twin(row.name), row.name)))


def is_twin(name: str) -> bool:
    """Return whether a builder makes the same tensors as another, plainer one."""
    return name.startswith("quantized_") or "_320_" in name
