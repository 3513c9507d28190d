"""Make the plan of a recipe, as a :class:`~surgeon.surgery.plan.Plan`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from surgeon.architectures.source import Source
from surgeon.errors import OperationError
from surgeon.surgery.inspection import Inspection
from surgeon.surgery.origins import Borrowed, Derived, Filled, Flow, Kept, Origin, parts_of
from surgeon.surgery.plan import Plan, Step, TensorFact


def make_plan(
    source: Source,
    steps: Sequence[Step],
    inspection: Inspection,
    flow: Flow,
    before: Mapping[str, torch.Tensor],
    *,
    read: Iterable[Origin] = (),
    outputs: bool,
) -> Plan:
    """Collect what the operations did, and where every tensor of the result comes from.

    Args:
        source: What the operations were applied to.
        steps: What each operation did.
        inspection: Inspects the result.
        flow: The result's tensors and their origins.
        before: The tensors of the skeleton before the operations.
        read: The origins of tensors whose values operations looked at.
        outputs: Whether to trace the result for its outputs.
    """
    notes = list(source.notes)
    shapes: dict[str, tuple[int, ...]] = {}
    if outputs:
        try:
            traced = inspection.trace()
            shapes = dict(traced.outputs)
            notes.append(f"shapes traced on {traced.evidence} tensors")
        except OperationError as error:
            notes.append(f"outputs not traced: {error.message}")
    facts = tuple(_fact(name, tensor, flow) for name, tensor in flow.tensors.items())
    kept_sources = {fact.source for fact in facts if fact.origin == "kept"}
    dropped = tuple(
        _describe(name, tensor, "kept", name)
        for name, tensor in before.items()
        if name not in kept_sources and name not in source.missing
    )
    return Plan(
        source=source.location,
        architecture=str(source.architecture) if source.architecture else "a module in memory",
        steps=tuple(steps),
        tensors=facts,
        dropped=dropped,
        outputs=shapes,
        bytes_read=_bytes_read([*map(flow.origins.get, flow.tensors.values()), *read], before),
        notes=tuple(notes),
    )


def _bytes_read(origins: Iterable[Origin | None], before: Mapping[str, torch.Tensor]) -> int:
    """Sum the bytes of the tensors that values are copied or computed from, each once."""
    sizes: dict[tuple[str, str], int] = {}
    for part in (part for origin in origins for part in parts_of(origin)):
        if isinstance(part, Kept):
            sizes["", part.name] = before[part.name].nbytes
        elif isinstance(part, Borrowed):
            sizes[part.donor, part.name] = part.nbytes
    return sum(sizes.values())


def _fact(name: str, tensor: torch.Tensor, flow: Flow) -> TensorFact:
    origin = flow.origins.get(tensor)
    if isinstance(origin, Kept):
        return _describe(name, tensor, "kept", origin.name)
    if isinstance(origin, Borrowed):
        return _describe(name, tensor, "derived", f"{origin.donor}: {origin.name}", origin.by)
    start: Origin | None = origin
    while isinstance(start, Filled):
        (start,) = start.sources
    kind = "derived" if isinstance(start, (Derived, Kept)) else "new"
    return _describe(name, tensor, kind, by=getattr(origin, "by", None))


def _describe(
    name: str, tensor: torch.Tensor, origin: Any, source: str | None = None, by: str | None = None
) -> TensorFact:
    return TensorFact(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        nbytes=tensor.nbytes,
        origin=origin,
        source=source,
        by=by,
        parameter=isinstance(tensor, nn.Parameter),
        trainable=tensor.requires_grad,
    )
