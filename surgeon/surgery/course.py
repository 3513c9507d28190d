"""Run a recipe's operations on a skeleton, one by one, and check the edits of each against the journal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from surgeon.architectures.donor import Donor, open_donor
from surgeon.errors import ArchitectureError, OperationError, PluginError, SurgeonError
from surgeon.graph.random_state import seeded
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Record, Surgeries
from surgeon.plugins import Plugins
from surgeon.surgery.context import Surgery
from surgeon.surgery.journal import Journal
from surgeon.surgery.module_state import ModuleStates
from surgeon.surgery.origins import Origin, Origins
from surgeon.surgery.plan import Step
from surgeon.surgery.snapshot import Snapshot
from surgeon.surgery.unrecorded import (
    refuse_gradient_hooks,
    refuse_lost_values,
    refuse_stray_hooks,
    refuse_unrecorded_settings,
    refuse_unrecorded_tensors,
)
from surgeon.surgery.value_changes import Values


class Course:
    """Run one recipe: hold the ``Surgery`` that its operations get, and the journal that only the engine reads.

    Args:
        root: The skeleton to edit.
        origins: Where its tensors come from.
        surgeries: The recipe's roles, inputs and seed, and for a replay its recorded answers.
        plugins: The plugins that declare families, build architectures and open donors.
        value: Reads the values of a tensor with a given origin.
        architecture: What builds the network before any surgery, if that is known.
        record: Makes the record of the network before the recipe; None in a replay.
        replay: Take the recorded answers instead of running forward passes.
        planning: Only a plan is wanted: let choices that need weights take what plans assume.
    """

    def __init__(
        self,
        root: nn.Module,
        origins: Origins,
        surgeries: Surgeries,
        plugins: Plugins,
        value: Callable[[Origin], torch.Tensor],
        *,
        architecture: Architecture | None,
        record: Callable[[], Record] | None = None,
        replay: bool = False,
        planning: bool = False,
    ) -> None:
        self._states: ModuleStates | None = None
        self.journal = Journal(origins, surgeries.answers if replay else None, surgeries.seed, planning=planning)
        self.journal.original.update(root.modules())
        self.surgery = Surgery(
            root,
            journal=self.journal,
            value=value,
            open_donor=_no_donor if replay else partial(open_donor, plugins=plugins),
            roles=surgeries.roles,
            inputs=surgeries.inputs,
            families=plugins.families(),
            architecture=architecture,
            record=record,
            providers=plugins.architectures(),
        )

    @property
    def root(self) -> nn.Module:
        """Return the root of the edited skeleton; an operation may have wrapped the first one."""
        return self.surgery.model

    def operate(self, operation: Operation, where: str | None = None) -> Step:
        """Run one operation and refuse changes that are not in its journal.

        Args:
            operation: The operation.
            where: Its place in the recipe, for errors.

        Raises:
            OperationError: It cannot be applied to this network, changed something without recording that, or wrote
                values that would be lost.
            PluginError: It raised an exception that is not a SurgeonError.
        """
        surgery, journal = self.surgery, self.journal
        journal.begin(operation.name)
        before, values = Snapshot.of(surgery.model), Values.of(surgery.model, journal.origins)
        # what the operation before has left; a replay repeats what was accepted then
        states = None if journal.replays else self._states or ModuleStates(surgery.model.named_modules())
        place = f"{where}: {operation.name}" if where else operation.name
        try:
            with journal.origins.writes.watched(), seeded(journal.next_seed()):
                result = operation.apply(surgery.model, surgery)
        except SurgeonError as error:
            error.at(place)
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(f"raised {type(error).__name__}: {error}", where=place) from error
        if result is not surgery.model:
            raise OperationError(
                f"apply returned {type(result).__name__}, not the network that was edited",
                where=place,
                hint="return surgery.model; a new root goes through surgery.wrap",
            )
        after = Snapshot.of(surgery.model)
        refuse_unrecorded_tensors(before, after, journal, place)
        if states is not None:
            refuse_lost_values(surgery.model, journal, place)
            refuse_gradient_hooks(before, after, place)
            self._states = ModuleStates(surgery.model.named_modules())
            refuse_unrecorded_settings(states, self._states, journal, place)
            refuse_stray_hooks(surgery.model, journal, place)
        revalued = values.edits(Values.of(surgery.model, journal.origins))
        edits = (*before.edits(after), *revalued, *journal.settings)
        return Step(operation.describe(), edits, tuple(journal.notes))


def _no_donor(reference: str) -> Donor:
    raise ArchitectureError("a replay does not open other checkpoints", where=reference)
