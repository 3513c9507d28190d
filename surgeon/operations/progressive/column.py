"""The new column of a progressive network: a copy, one drawn afresh, or another architecture."""

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
    """Make a column, and say what builds it where that is another architecture than the first's.

    Args:
        surgery: The course of surgery.
        network: The network that the column is for.
        arch: Another architecture for it; the last column's structure if None.
        options: Keyword arguments of the builder of ``arch``.
        redraw_values: Draw the values as the architecture initialises them, not copy the last column's.

    Raises:
        ArchitectureError: ``arch`` is unknown or cannot be built.
        OperationError: There is nothing to draw the weights of the last column's structure from.
    """
    last = network.columns[-1]
    if arch is not None:
        architecture = surgery.locate(arch, **options)
        return surgery.new(surgery.build, architecture, like=last).train(last.training), architecture
    own = network.architectures[-1]
    known = own or surgery.architecture
    if redraw_values:
        return _redrawn(surgery, last, known), own
    return _copied(surgery, last, known), own


def _copied(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    column = _twin(surgery, last, architecture)
    values = dict(tensors_of(last))
    for name, tensor in tensors_of(column):
        surgery.derive(tensor, [values[name]], _same)
    return column


def _redrawn(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    """The last column's structure, its values drawn afresh."""
    column = _twin(surgery, last, architecture)
    unknown = redraw(surgery, column, drawn_by(surgery, architecture))
    if unknown:
        raise OperationError(
            f"nothing says how to initialise {len(unknown)} tensors of {type(last).__name__} afresh: "
            f"{', '.join(unknown[:3])}",
            hint="use column: copy, or name an architecture with arch",
        )
    return column


def _twin(surgery: Surgery, last: nn.Module, architecture: Architecture | None) -> nn.Module:
    """A skeleton like ``last``, not connected to anything; all of it trains but what its builder freezes."""
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
