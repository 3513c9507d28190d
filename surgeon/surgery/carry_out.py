"""Carry out one operation and compare what it did with its journal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from surgeon.architectures.donor import Donor, open_donor
from surgeon.errors import ArchitectureError, OperationError, PluginError, SurgeonError
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Surgeries
from surgeon.plugins import Plugins
from surgeon.surgery.context import Surgery
from surgeon.surgery.origins import Origin, Origins
from surgeon.surgery.plan import Step
from surgeon.surgery.snapshot import Snapshot
from surgeon.surgery.value_changes import Values


def make_surgery(
    root: nn.Module,
    origins: Origins,
    surgeries: Surgeries,
    plugins: Plugins,
    value: Callable[[Origin], torch.Tensor],
    *,
    architecture: Architecture | None,
    replay: bool = False,
) -> Surgery:
    """What the operations of one recipe are handed."""
    return Surgery(
        root,
        origins,
        value=value,
        open_donor=_no_donor if replay else partial(open_donor, plugins=plugins),
        roles=surgeries.roles,
        inputs=surgeries.inputs,
        families=plugins.families(),
        architecture=architecture,
        providers=plugins.architectures(),
        answers=surgeries.answers if replay else None,
    )


def _no_donor(reference: str) -> Donor:
    raise ArchitectureError("a replay opens no other checkpoint", where=reference)


def operate(surgery: Surgery, operation: Operation, where: str | None) -> Step:
    """Carry out one operation and hold it to its journal."""
    surgery.begin(operation.name)
    before, values = Snapshot.of(surgery.model), Values.of(surgery.model, surgery.origins)
    place = f"{where}: {operation.name}" if where else operation.name
    try:
        result = operation.apply(surgery.model, surgery)
    except SurgeonError as error:
        error.at(place)
        raise
    except Exception as error:
        raise PluginError(f"raised {type(error).__name__}: {error}", where=place) from error
    if result is not surgery.model:
        raise OperationError(
            f"apply returned {type(result).__name__}, not the network that was edited",
            where=place,
            hint="return surgery.model; a new root goes through surgery.wrap",
        )
    after = Snapshot.of(surgery.model)
    unclaimed = before.unclaimed(after, surgery.claims, surgery.state_claims)
    if unclaimed:
        raise OperationError(
            f"changed {len(unclaimed)} tensors outside its journal: {', '.join(unclaimed[:4])}",
            where=place,
            hint="edit through surgery.replace, insert, attach, keep_children, freeze, …",
        )
    revalued = values.edits(Values.of(surgery.model, surgery.origins))
    return Step(operation.describe(), (*before.edits(after), *revalued), tuple(surgery.notes))
