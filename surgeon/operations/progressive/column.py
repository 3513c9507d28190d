"""Make the new column of a progressive network: a copy, a reinitialised copy, or another architecture."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.skeleton import build_skeleton, skeleton_of
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.architecture_name import Architecture
from surgeon.nn.frozen import thaw_norm
from surgeon.operations._shared.reinitialize import disconnect, drawn_by, redraw

if TYPE_CHECKING:
    from surgeon.nn.progressive import ProgressiveNetwork
    from surgeon.surgery.context import Surgery


def new_column(
    surgery: Surgery,
    network: ProgressiveNetwork,
    *,
    arch: str | None,
    options: Mapping[str, Any],
    redraw_values: bool,
) -> tuple[nn.Module, Architecture | None]:
    """Make a column; also return what builds it, if that is not the architecture of the first one.

    Args:
        surgery: The surgery.
        network: The network that the column is for.
        arch: The architecture of the column; None for the structure of the last column.
        options: Keyword arguments of the builder of ``arch``.
        redraw_values: Reinitialise the values instead of copying the last column's.

    Raises:
        ArchitectureError: ``arch`` is unknown or cannot be built.
        OperationError: A tensor has no known initialisation.
    """
    last = network.columns[-1]
    if arch is not None:
        architecture = surgery.locate(arch, **options)
        return surgery.new(surgery.build, architecture, like=last).train(last.training), architecture
    last_architecture = network.architectures[-1]
    builder = last_architecture or surgery.architecture
    if redraw_values:
        return _redrawn(surgery, last, builder), last_architecture
    return _copied(surgery, last, builder), last_architecture


def _copied(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    column = _twin(surgery, last, architecture)
    values = dict(tensors_of(last))
    for name, tensor in tensors_of(column):
        surgery.derive(tensor, [values[name]], _same)
    return column


def _redrawn(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    """Make a column with the last one's structure, and reinitialise it."""
    column = _twin(surgery, last, architecture)
    unknown = redraw(surgery, column, drawn_by(surgery, architecture))
    if unknown:
        raise OperationError(
            f"cannot reinitialise {len(unknown)} tensors of {type(last).__name__}: {', '.join(unknown[:3])}",
            hint="use column: copy, or name an architecture with arch",
        )
    return column


def _twin(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    """Make a skeleton like ``last`` without its hooks; only what its builder freezes is frozen."""
    twin = skeleton_of(last)
    for module in twin.modules():
        thaw_norm(module)
    disconnect(twin)
    frozen: set[str] = set()
    if architecture is not None and not all(p.requires_grad for p in last.parameters()):
        built = build_skeleton(partial(surgery.build, architecture))
        frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and name not in frozen)
    return twin.train(last.training)


def _same(values: torch.Tensor) -> torch.Tensor:
    return values
