"""The promises that operations keep, each checked by itself on a network before and after its surgery."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.graph.unsaved_state import unsaved_state
from surgeon.interfaces.operation import Operation
from surgeon.pipeline.api import apply, load, save
from surgeon.pipeline.prepare import prepare
from surgeon.testing import behaviour
from surgeon.testing.compilation import check_compile, check_export
from surgeon.testing.hash_seeds import check_hash_seeds
from surgeon.testing.runs import SEED, Arguments, Case, Loss, run, same
from surgeon.testing.training_step import check_training_step
from surgeon.testing.trees import check_tree


def case_of(
    build: Callable[[], nn.Module], operations: Sequence[Operation], arguments: Arguments, loss: Loss | None = None
) -> Case:
    """Apply operations to the network that ``build`` makes.

    Raises:
        AssertionError: The network itself was changed, or the edited one does not run on the given arguments.
        SurgeonError: surgeon refuses the operations.
    """
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    edited = apply(model, operations, seed=SEED).eval()
    _same_state(model.state_dict(), before, "the input network was changed: edit through surgery, not the original")
    # not of a plan alone, which makes no choices by weights
    facts = prepare(model, operations, seed=SEED).plan.tensors
    case = Case(
        original=model,
        edited=edited,
        arguments=arguments,
        names=", ".join(operation.name for operation in operations),
        build=build,
        operations=operations,
        new=frozenset(fact.name for fact in facts if fact.origin != "kept"),
        kept={fact.name: str(fact.source) for fact in facts if fact.origin == "kept" and str(fact.source) in before},
        loss=loss,
    )
    try:
        run(edited, arguments)
    except Exception as error:
        raise AssertionError(
            f"the edited network does not run on the given args and kwargs: {type(error).__name__}: {error}"
        ) from error
    return case


def check_values(case: Case) -> None:
    """Apply the operations again: the seed decides about new values, and kept tensors stay as they are.

    Raises:
        AssertionError: It is not so; the message says how to mend it.
    """
    model, before = case.original, case.original.state_dict()
    again = apply(model, case.operations, seed=SEED).eval()
    drawn = "the same seed gave other values: draw with torch, in surgery.fill or in a module's __init__"
    _same_state(case.edited.state_dict(), again.state_dict(), drawn)
    _same_state(unsaved_state(case.edited), unsaved_state(again), drawn)
    _check_kept(case.edited, before, case.kept or {}, "")
    _check_kept(apply(model, case.operations, seed=SEED + 1), before, case.kept or {}, " with another seed")


def check_copy(case: Case) -> None:
    """Compare the outputs of a copy.

    Raises:
        AssertionError: They differ.
    """
    _same_output(run(copy.deepcopy(case.edited), case.arguments), run(case.edited, case.arguments), "a deepcopy")


def check_artifact(case: Case) -> None:
    """Save the edited network, load it, and compare values and outputs.

    Raises:
        AssertionError: They differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = save(case.edited, Path(folder) / "artifact")
        reloaded = load(path, arch=case.build)
        _same_state(reloaded.state_dict(), case.edited.state_dict(), "saving and loading changed values")
        _same_output(run(reloaded, case.arguments), run(case.edited, case.arguments), "the reloaded artifact")


def check_training(case: Case) -> None:
    """Train a copy for some steps.

    Raises:
        AssertionError: A new parameter gets no gradient, a frozen tensor changes, or the copy shares a tensor.
    """
    state = copy.deepcopy(case.edited.state_dict())
    check_training_step(case)
    shared = "training a copy of the network changed the network: they share a tensor"
    _same_state(case.edited.state_dict(), state, shared)


PROMISES: Mapping[str, Callable[[Case], None]] = {
    "modules": check_tree,
    "values": check_values,
    "copy": check_copy,
    "modes": behaviour.check_modes,
    "chance": behaviour.check_chance,
    "globals": behaviour.check_globals,
    "batches": behaviour.check_batches,
    "nan": behaviour.check_nan,
    "device": behaviour.check_device,
    "half": behaviour.check_half,
    "artifact": check_artifact,
    "training": check_training,
}
"""The promises that ``check_operations`` checks, in this order: what others rely on comes first."""
SLOW_PROMISES: Mapping[str, Callable[[Case], None]] = {
    "compile": check_compile,
    "export": check_export,
    "hash_seeds": check_hash_seeds,
}
"""Those that take seconds each."""


def _check_kept(model: nn.Module, before: Mapping[str, torch.Tensor], sources: Mapping[str, str], when: str) -> None:
    state = model.state_dict()
    for name, source in sources.items():
        if not torch.equal(state[name], before[source]):
            raise AssertionError(f"{name} should be kept, but its values differ from {source}{when}")


def _same_state(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], complaint: str) -> None:
    if actual.keys() != expected.keys():
        raise AssertionError(f"{complaint}: {sorted(actual.keys() ^ expected.keys())[:5]}")
    for name, tensor in expected.items():
        if not same([actual[name]], [tensor]):
            raise AssertionError(f"{complaint}: {name}")


def _same_output(actual: Any, expected: Any, subject: str) -> None:
    if not same(actual, expected):
        raise AssertionError(
            f"{subject} gives other outputs: what decides about them is not in the state dict, the fields of the "
            "operation or the arguments of its modules"
        )
