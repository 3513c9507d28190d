"""Find timm's builders by the keys and shapes of a state dict.

``table.json`` holds a digest for each builder. A digest is a sum over keys, so the keys whose shapes depend on the
number of classes, the input channels or the image size are subtracted: they may have any value. Make the file again
after an upgrade of timm:

    python -m surgeon_timm.make_table
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from math import isqrt
from typing import Any

FILE = "table.json"
MASK = 2**64 - 1
COUNTER = "num_batches_tracked"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Free:
    """Names what builders' options give a shape.

    Attributes:
        heads: The classifiers, by path.
        stems: The convolutions that read the image.
        positions: The position embedding; empty where it has no free length.
    """

    heads: tuple[str, ...]
    stems: tuple[str, ...]
    positions: str = ""


@dataclass(frozen=True)
class Row:
    """Describes a builder.

    Attributes:
        name: The builder.
        trunk: The digest of its tensors, without what ``free`` names.
        structure: A digest of classes and settings: builders with the same one make the same network.
        free: What its options give a shape.
        extra: The rows of the position embedding that are not patches.
    """

    name: str
    trunk: int
    structure: str
    free: Free
    extra: int = 0


def trunk_digest(shapes: Shapes, free: Free) -> int:
    """Return the digest of a state dict without heads, input channels and image size.

    Args:
        shapes: Its shapes by name.
        free: What is left out.
    """
    total = 0
    for name, shape in shapes.items():
        path, _, kind = name.rpartition(".")
        if kind == COUNTER or path in free.heads:
            continue
        if path in free.stems and kind == "weight" and len(shape) > 3:
            shape = (shape[0], 0, *shape[2:])
        if name == free.positions:
            shape = (shape[0], 0, *shape[2:])
        total += _digest(name, shape)
    return total & MASK


def candidates(shapes: Shapes) -> list[Row]:
    """Return the builders whose tensors ``shapes`` may be, with any head, channels and image size."""
    groups: dict[Free, list[Row]] = {}
    for row in table():
        groups.setdefault(row.free, []).append(row)
    matched = []
    for free, rows in groups.items():
        total = trunk_digest(shapes, free)
        matched += [row for row in rows if row.trunk == total]
    return matched


def read_options(row: Row, shapes: Shapes, stock: Shapes) -> Iterator[dict[str, Any]]:
    """Yield the builder's options that may give tensors of these shapes, the likeliest first.

    Args:
        row: The builder.
        shapes: The shapes of the file.
        stock: The shapes of the builder's network without options.
    """
    options: dict[str, Any] = {}
    heads = {shapes[f"{head}.weight"][0] for head in row.free.heads if f"{head}.weight" in shapes}
    before = {stock[f"{head}.weight"][0] for head in row.free.heads if f"{head}.weight" in stock}
    if len(heads) == 1 and heads != before:
        options["num_classes"] = heads.pop()
    elif not heads and before:
        options["num_classes"] = 0
    for stem in row.free.stems:
        key = f"{stem}.weight"
        if key in shapes and key in stock and len(shapes[key]) > 3 and shapes[key][1] != stock[key][1]:
            options["in_chans"] = shapes[key][1]
    if (key := row.free.positions) and key in shapes and shapes[key] != stock.get(key):
        patch = shapes.get(f"{row.free.stems[0]}.weight", (0,))[-1]
        if side := isqrt(max(shapes[key][1] - row.extra, 0)):
            options["img_size"] = side * patch
    yield options


@cache
def content() -> dict[str, Any]:
    """Return the stored table as it is in the file."""
    text = files("surgeon_timm").joinpath(FILE).read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def table() -> tuple[Row, ...]:
    """Return the stored rows."""
    stored = content()
    groups = [Free(tuple(heads), tuple(stems), positions) for heads, stems, positions in stored["free"]]
    return tuple(
        Row(name, int(trunk, 16), structure, groups[group], extra)
        for name, trunk, structure, group, extra in stored["builders"]
    )


def as_tuple(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return timm's names of layers, which may be one or several, as a tuple."""
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _digest(name: str, shape: tuple[int, ...]) -> int:
    text = f"{name} {list(shape)}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
