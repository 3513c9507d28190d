"""Compute the initial values of the last layer of a new head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from surgeon.errors import OperationError, suggest
from surgeon.families.registry import config_of

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

Pairs = Sequence[tuple[int, int]]
"""A new class, and the old class whose row it starts with."""


def shared_classes(operation: ReplaceHeadFields, surgery: Surgery, old_count: int) -> list[tuple[int, int]]:
    """Pair new classes with old ones, by the operation's map or by names in both sets.

    Raises:
        OperationError: A class is unknown, the names are not, or none is shared.
    """
    config = config_of(surgery.model, surgery.families)
    in_config = config.class_names() if config is not None else ()
    old = old_names(operation, in_config, old_count)
    new = operation.classes if isinstance(operation.classes, list) else [str(i) for i in range(operation.count)]
    if operation.rows is not None:
        return [(_index(name, new, "new"), _index(origin, old, "old")) for name, origin in operation.rows.items()]
    if not isinstance(operation.classes, list) or not (operation.old_classes or in_config):
        raise OperationError(
            "init: rows needs to know which classes both heads have",
            hint="name the new ones in classes and the old ones in old_classes, or map them in rows",
        )
    pairs = [(i, old.index(name)) for i, name in enumerate(new) if name in old]
    if not pairs:
        raise OperationError(
            "init: rows, but the old and the new classes have no name in common",
            hint=f"old: {', '.join(old[:5])}…; map them in rows: {{{new[0]}: {old[0]}}}",
        )
    return pairs


def old_names(operation: ReplaceHeadFields, in_config: Sequence[str], count: int) -> list[str]:
    """Return the names of the old head's classes; their indices if the names are unknown.

    Raises:
        OperationError: ``old_classes`` are not as many as the old head has.
    """
    names = operation.old_classes or list(in_config) or [str(i) for i in range(count)]
    if len(names) != count:
        raise OperationError(f"the old head has {count} classes, and {len(names)} names are given for them")
    return names


def initialise(
    surgery: Surgery,
    operation: ReplaceHeadFields,
    new: nn.Module,
    old: nn.Module,
    pairs: Pairs | None,
    *,
    groups: int = 1,
    block: int = 1,
) -> None:
    """Set the initial values of the last layer ``new`` by ``operation.init``.

    Args:
        surgery: Where the values are derived.
        operation: Says how.
        new: The new layer.
        old: The layer in whose place it stands.
        pairs: For ``rows``, the classes that both have.
        groups: How often the classes repeat along the rows: a detector's anchors.
        block: How many rows each class has: the four sides of its box.
    """
    if operation.init == "default":
        return
    for name, tensor in new.named_parameters(recurse=False):
        if name not in ("weight", "bias"):
            continue
        if operation.init == "zeros":
            surgery.derive(tensor, [tensor], torch.zeros_like)
            continue
        source = getattr(old, name, None)
        if source is None:
            continue
        if source.shape[1:] != tensor.shape[1:]:
            raise OperationError(
                f"init: rows, but the rows of the old head have shape {tuple(source.shape[1:])} "
                f"and the new ones {tuple(tensor.shape[1:])}",
                hint="rows can be copied where the last layer reads the same features: kind: linear",
            )
        copy = partial(copy_rows, pairs=tuple(pairs or ()), groups=groups, block=block)
        surgery.derive(tensor, [tensor, source], copy)


def copy_rows(new: torch.Tensor, old: torch.Tensor, *, pairs: Pairs, groups: int, block: int) -> torch.Tensor:
    """Return ``new`` with the rows of some classes of ``old``; both ``(groups · classes · block, …)``."""
    result = new.clone().reshape(groups, -1, block, *new.shape[1:])
    rows = old.to(new.dtype).reshape(groups, -1, block, *old.shape[1:])
    for target, origin in pairs:
        result[:, target] = rows[:, origin]
    return result.flatten(0, 2)


def _index(name: str | int, names: list[str], kind: str) -> int:
    if isinstance(name, int):
        if not 0 <= name < len(names):
            raise OperationError(f"rows: there is no {kind} class {name}: they go from 0 to {len(names) - 1}")
        return name
    if name not in names:
        raise OperationError(f"rows: no {kind} class is called {name!r}", hint=suggest(name, names))
    return names.index(name)
