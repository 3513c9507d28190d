"""Refuse a result that does not run although its source does, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon.errors import OperationError, SurgeonError
from surgeon.surgery.inspection import Examination
from surgeon.surgery.replay import open_skeleton

if TYPE_CHECKING:
    from surgeon.architectures.source import Source
    from surgeon.interfaces.record import Surgeries
    from surgeon.plugins import Plugins
    from surgeon.surgery.context import Surgery


def refuse_if_broken(surgery: Surgery, source: Source, plugins: Plugins, surgeries: Surgeries) -> None:
    """Trace the result; where that fails, trace the source too.

    A network that could not be run before says nothing: it may take inputs that nobody can guess.

    Args:
        surgery: The surgery at its end.
        source: What it was made from.
        plugins: The plugins at hand.
        surgeries: The recipe, with the inputs that it gives.

    Raises:
        OperationError: The source runs, and the result does not.
    """
    try:
        surgery.trace()
        return
    except OperationError as error:
        problem = error
    families = plugins.families()
    # An operation may have changed what the network takes; then the recipe's inputs are right for the source only.
    if surgeries.inputs is not None and _runs(Examination(surgery.model, families=families)):
        return
    try:
        before, _, _ = open_skeleton(source, plugins)
    except SurgeonError:
        return
    if not _runs(Examination(before, inputs=surgeries.inputs, families=families)):
        return
    raise OperationError(
        f"the source runs, and the result does not: {problem.message}",
        hint="change the operations; must_run: false in the recipe writes it all the same",
    ) from problem


def _runs(network: Examination) -> bool:
    try:
        network.trace()
    except OperationError:
        return False
    return True
