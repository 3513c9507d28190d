"""Refuse a result that does not run although its source does, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon.errors import OperationError, SurgeonError
from surgeon.surgery.inspection import Inspection
from surgeon.surgery.replay import open_from

if TYPE_CHECKING:
    from surgeon.interfaces.record import Surgeries
    from surgeon.surgery.context import Surgery
    from surgeon.surgery.opened import OpenedNetwork


def refuse_if_broken(surgery: Surgery, opened: OpenedNetwork, surgeries: Surgeries) -> None:
    """Trace the result; if that fails, trace the source too.

    A source that cannot be run proves nothing: its inputs may be unknown.

    Args:
        surgery: The finished surgery.
        opened: The network that it was made from.
        surgeries: The recipe, with its inputs.

    Raises:
        OperationError: The source runs, and the result does not.
    """
    try:
        surgery.trace()
        return
    except OperationError as error:
        problem = error
    families = opened.options.plugins.families()
    # an operation may have changed the network's inputs, so that the recipe's inputs fit the source only
    if surgeries.inputs is not None and _runs(Inspection(surgery.model, families=families)):
        return
    try:
        before = open_from(opened.source, opened.options).root
    except SurgeonError:
        return
    if not _runs(Inspection(before, inputs=surgeries.inputs, families=families)):
        return
    raise OperationError(
        f"the source runs, but the result does not: {problem.message}",
        hint="change the operations; must_run: false in the recipe writes it anyway",
    ) from problem


def _runs(network: Inspection) -> bool:
    try:
        network.trace()
    except OperationError:
        return False
    return True
