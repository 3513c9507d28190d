"""Limit what a config, manifest or recipe may request, before anything is built.

A number in a small file must not cost minutes and gigabytes. The limits are far above all published networks;
``SURGEON_LIMITS=off`` in the environment disables them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from surgeon.errors import ArchitectureError

LAYERS = 1000
"""Layers, if there are no weights to limit them."""
SHARED = 200
"""Layers that share tensors."""
LABELS = 1_000_000
"""Labels of a config whose weights have as many rows, and classes of an operation."""
NAMED = 50_000
"""Labels of a config without such weights: transformers makes a name for each, several times over."""
SIZE = 2**24
"""Channels, positions, words and heads of a config; some fill buffers that are computed at building."""
OPERATIONS = 1000
"""Operations of a recipe, or of all surgeries in a manifest."""
ELEMENTS = 2**28
"""Elements of an input to trace with."""

_DEPTH = re.compile(r"(^|_)(?<!per_)(layers?|blocks|depths?)$")
_SIZE = re.compile(
    r"(size|dim|width|heads|channels|embeddings|positions|experts|features|states|window|groups|ranks?)$|^[nd]_"
)
_DEPTHS = re.compile(r"(^|_)depths?$|^num_|^layers$")
"""Keys whose lists hold numbers of layers; other lists hold indices of layers."""
OVERRIDE = "if intended, set SURGEON_LIMITS=off in the environment"


def check_config(values: Mapping[str, Any], where: str, shapes: Sequence[tuple[int, ...]] | None = None) -> None:
    """Refuse a transformers config with too many layers or labels.

    Args:
        values: The config as plain data.
        where: The location of the config.
        shapes: The shapes of the tensors in its weights: each layer has at least one, and each label a row in one.

    Raises:
        ArchitectureError: It exceeds a limit.
    """
    if os.environ.get("SURGEON_LIMITS") == "off":
        return
    layers = LAYERS if shapes is None else max(len(shapes), SHARED)
    labels = min(LABELS, max([NAMED, *(shape[0] for shape in shapes or () if shape)]))
    for key, value in _items(values, ""):
        name = key.rpartition(".")[2]
        if name == "num_labels" or name in ("id2label", "label2id"):
            _bound(key, len(value) if isinstance(value, (dict, list)) else value, labels, "labels", where)
        elif isinstance(value, Mapping):
            _bound(f"the size of {key}", len(value), NAMED, "entries", where)
        elif _DEPTH.search(name):
            if isinstance(value, list):
                value = sum(n for n in value if isinstance(n, (int, float))) if _DEPTHS.search(name) else len(value)
            noun = "layers" if shapes is None else f"layers for {len(shapes)} tensors"
            _bound(key, value, layers, noun, where)
        elif _SIZE.search(name):
            for size in value if isinstance(value, list) else [value]:
                _bound(key, size, SIZE, "", where)


def check_length(record: Any, where: str) -> None:
    """Refuse the record of a manifest with too many operations, before it is validated.

    Raises:
        ArchitectureError: It exceeds the limit.
    """
    surgeries = record.get("surgeries") if isinstance(record, Mapping) else None
    if not isinstance(surgeries, list) or os.environ.get("SURGEON_LIMITS") == "off":
        return
    _bound("the number of surgeries", len(surgeries), OPERATIONS, "", where)
    for key in ("operations", "resolved"):
        lists = [surgery.get(key) for surgery in surgeries if isinstance(surgery, Mapping)]
        count = sum(len(operations) for operations in lists if isinstance(operations, list))
        _bound(f"the number of {key}", count, OPERATIONS, "", where)


def check_request(operations: list[dict[str, Any]], inputs: Any, where: str) -> None:
    """Refuse too many operations, operations with too many classes, or inputs with too many elements.

    Raises:
        ArchitectureError: A value exceeds a limit.
    """
    if os.environ.get("SURGEON_LIMITS") == "off":
        return
    _bound("the number of operations", len(operations), OPERATIONS, "", where)
    for index, operation in enumerate(operations):
        for key, value in _items(operation, f"operations.{index}"):
            if not key.endswith("seed"):
                _bound(key, value, LABELS if key.endswith("classes") else ELEMENTS, "", where)
    for key, shape in _shapes(inputs, "inputs"):
        _bound(key, prod(shape), ELEMENTS, "elements", where)


def _bound(key: str, value: Any, most: int, noun: str, where: str) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > most:
        limit = f"at most {most:,} {noun}".rstrip()
        raise ArchitectureError(f"{key} is {value:,}: {limit} are allowed", where=where, hint=OVERRIDE)


def _items(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dictionaries by path; lists are not entered."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        path = f"{at}.{key}" if at else str(key)
        yield path, item
        if not (isinstance(item, Mapping) and len(item) > 10_000):
            yield from _items(item, path)


def _shapes(value: Any, at: str) -> Iterator[tuple[str, list[int]]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _shapes(item, f"{at}.{key}")
    elif isinstance(value, (list, tuple)):
        if value and all(type(item) is int for item in value):
            yield at, list(value)
        else:
            for index, item in enumerate(value):
                yield from _shapes(item, f"{at}.{index}")
