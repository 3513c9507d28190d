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
    """Trace the result; where that fails, trace the source too.

    A network that could not be run before says nothing: it may take inputs that nobody can guess.

    Args:
        surgery: The surgery at its end.
        opened: The network that it was made from.
        surgeries: The recipe, with the inputs that it gives.

    Raises:
        OperationError: The source runs, and the result does not.
    """
    try:
        surgery.trace()
        return
    except OperationError as error:
        problem = error
    families = opened.options.plugins.families()
    # An operation may have changed what the network takes; then the recipe's inputs are right for the source only.
    if surgeries.inputs is not None and _runs(Inspection(surgery.model, families=families)):
        return
    try:
        before = open_from(opened.source, opened.options).root
    except SurgeonError:
        return
    if not _runs(Inspection(before, inputs=surgeries.inputs, families=families)):
        return
    raise OperationError(
        f"the source runs, and the result does not: {problem.message}",
        hint="change the operations; must_run: false in the recipe writes it all the same",
    ) from problem


def _runs(network: Inspection) -> bool:
    try:
        network.trace()
    except OperationError:
        return False
    return True
