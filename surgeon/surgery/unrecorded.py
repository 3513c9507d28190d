"""Refuse what an operation did and did not record: edits behind the journal, and values that would be lost."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from surgeon.errors import OperationError, counted
from surgeon.graph.tensors import tensors_of
from surgeon.surgery.journal import Journal
from surgeon.surgery.module_state import CLASS, CLASS_METHODS, HOOKS, TRAINING, Change, ModuleStates
from surgeon.surgery.setting_edits import PATCHED
from surgeon.surgery.snapshot import Snapshot

_SHOWN = 4


def refuse_lost_values(model: nn.Module, journal: Journal, place: str) -> None:
    """Refuse values that were written into tensors of a skeleton.

    Raises:
        OperationError: There are some; it names the tensors.
    """
    written = [name for name, tensor in tensors_of(model) if journal.origins.writes.reached(tensor)]
    if written:
        raise OperationError(
            f"wrote values into {_few(written)}, which {'are' if len(written) > 1 else 'is'} filled only later, so "
            "that they would be lost",
            where=place,
            hint=f"say how to fill it: surgery.fill(tensor of {written[0]}, nn.init.zeros_), or surgery.derive; a new "
            "module may also be initialised where it is made, in the function that surgery.new calls",
        )


def refuse_unrecorded_tensors(before: Snapshot, after: Snapshot, journal: Journal, place: str) -> None:
    """Refuse tensors and modules that were exchanged, and parameters whose training state was changed.

    Raises:
        OperationError: The journal does not mention them; it names them.
    """
    if cast := before.cast(after, journal.changed):
        raise OperationError(
            f"cast {counted(len(cast), 'tensor')} outside its journal: {_few(cast)}",
            where=place,
            hint="surgery.convert(dtype, function) records it and shows it; what surgery.new makes may be cast",
        )
    if swapped := before.swapped(after, journal.changed):
        raise OperationError(
            f"swapped the contents of {counted(len(swapped), 'tensor')} outside its journal: {_few(swapped)}",
            where=place,
            hint="surgery.derive(new tensor, [old tensor], function) gives a tensor the values of another",
        )
    if unclaimed := before.unclaimed(after, journal.changed, journal.retrained):
        raise OperationError(
            f"changed {counted(len(unclaimed), 'tensor')} outside its journal: {_few(unclaimed)}",
            where=place,
            hint="edit through surgery.replace, insert, attach, keep_children, freeze, …",
        )
    if sites := before.exchanged(after, journal.changed):
        raise OperationError(
            f"changed modules outside its journal: {_few([_exchange(before, after, site) for site in sites])}",
            where=place,
            hint="edit through surgery.replace, remove, attach, insert or keep_children",
        )


def refuse_gradient_hooks(before: Snapshot, after: Snapshot, place: str) -> None:
    """Refuse hooks on the gradients of parameters: the network that is filled has other tensors.

    Raises:
        OperationError: There are new ones; it names the parameters.
    """
    if hooked := before.hooked(after):
        raise OperationError(
            f"hooked gradients outside its journal: {_few(hooked)}; a hook on a tensor is lost where the network is "
            "filled, copied or saved",
            where=place,
            hint="surgery.freeze leaves out whole parameters; for a part of one, put a module there whose forward "
            "multiplies it by a mask, a buffer",
        )


def refuse_unrecorded_settings(before: ModuleStates, after: ModuleStates, journal: Journal, place: str) -> None:
    """Refuse settings, config fields, modes, classes and hooks that were changed.

    Raises:
        OperationError: The journal does not mention them; it names the sites and attributes.
    """
    changes = [change for change in before.changes(after) if change.key not in journal.claims]
    if changes:
        raise OperationError(
            f"changed outside its journal: {_few([str(change) for change in changes], '; ')}",
            where=place,
            hint=_how_to_record(changes[0]),
        )


def refuse_stray_hooks(model: nn.Module, journal: Journal, place: str) -> None:
    """Refuse a hook that is a method of a module outside the network: it would not be saved with it.

    Raises:
        OperationError: There is one.
    """
    inside = {id(module) for module in model.modules()}
    for owner, site in journal.hooked:
        if id(owner) not in inside and site in dict(model.named_modules()):
            kind = type(owner).__name__
            raise OperationError(
                f"the hook on {site or 'the network'} is a method of a {kind} that is not in the network",
                where=place,
                hint="put that module into the network: surgery.attach(parent, name, module)",
            )


def _exchange(before: Snapshot, after: Snapshot, site: str) -> str:
    old, new = before.modules.get(site), after.modules.get(site)
    if old is None or new is None:
        return f"{site} ({type(old or new).__name__}, {'gone' if new is None else 'new'})"
    return f"{site} ({type(old).__name__} → {type(new).__name__})"


def _how_to_record(change: Change) -> str:
    site = repr(change.site)
    if change.name == HOOKS:
        return f"surgery.hook({site}, module.method) records a hook that is copied and saved with the network"
    if change.name == CLASS:
        return f"surgery.set({site}, '__class__', the class) records it and shows it in the plan"
    if change.name == TRAINING:
        return "leave modes alone: train() and eval() change them back. surgery.freeze makes norms stay in eval mode"
    if change.name in ("forward", CLASS_METHODS):
        return f"it is {PATCHED}: surgery.replace(site, module of your own class), insert, or hook"
    return f"surgery.set({site}, {change.attribute!r}, value) records it and shows it in the plan"


def _few(texts: Sequence[str], comma: str = ", ") -> str:
    more = f"{comma}… ({len(texts) - _SHOWN} more)" if len(texts) > _SHOWN else ""
    return comma.join(texts[:_SHOWN]) + more
