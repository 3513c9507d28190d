"""Check operations against surgeon's promises, on a network of the author's choice."""

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
from surgeon.interfaces.registered import registered
from surgeon.interfaces.returned import is_ours
from surgeon.operations import Freeze, GradientReversal, Insert, Multitask, ReplaceHead
from surgeon.pipeline.api import apply, load, plan, save
from surgeon.pipeline.prepare import prepare
from surgeon.testing.behaviour import check_behaviour
from surgeon.testing.runs import Arguments, Case, run, same
from surgeon.testing.training_step import check_training_step
from surgeon.testing.trees import check_tree


def check_operations(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
) -> nn.Module:
    """Apply ``operations`` to the network that ``build`` makes, and check surgeon's promises.

    The input network is unchanged. Every tensor is accounted for and kept ones are byte-identical. The same seed gives
    the same values. New modules can be copied, pickled and moved; a copy and a reloaded artifact give equal outputs.
    Samples of a batch stay apart, any batch size runs, modes are left alone, NaN is passed on, and what ran in bfloat16
    still does. A training step changes trainable tensors and no frozen ones, and every new one gets a gradient. What
    the network did not keep to before, it need not keep to afterwards. The classes need not be installed.

    Args:
        build: Makes the network, the same one on each call.
        operations: The operations.
        args: Positional arguments of a forward of the edited network.
        kwargs: Keyword arguments of the forward.
        loss: Computes a scalar from the edited network, if its training forward needs other arguments (a detector needs
            targets). Default: the mean square of its outputs.

    Returns:
        The edited network in eval mode, before the training step.

    Raises:
        AssertionError: A promise is broken; the message says which, and how to mend it.
        SurgeonError: surgeon refuses the operations; values written into a skeleton are, for instance.
    """
    with registered(*{type(operation): None for operation in operations if not is_ours(operation)}):
        return _checked(build, operations, (args, dict(kwargs or {})), loss)


def check_composition(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    others: Sequence[Operation] | None = None,
) -> list[str]:
    """Apply ``operations`` before and after each of some others, and run the results.

    An order that makes no sense may be refused by a ``SurgeonError`` that says so.

    Args:
        build: Makes the network, the same one on each call.
        operations: The operations.
        args: Positional arguments of a forward of the network.
        kwargs: Keyword arguments of the forward.
        others: The others, each of which has to apply to the network alone. Default: those of surgeon's that apply to
            a classifier: ``replace_head``, ``freeze``, ``gradient_reversal``, ``multitask`` and ``insert``.

    Returns:
        The orders that work, such as ``["freeze, mine", "mine, freeze"]``.

    Raises:
        AssertionError: An order is neither refused nor gives a network that runs; or none works.
    """
    from surgeon.errors import PluginError, SurgeonError

    worked: list[str] = []
    with registered(*{type(operation): None for operation in operations if not is_ours(operation)}):
        for other in _usual_operations() if others is None else others:
            try:
                plan(build(), [other])
            except SurgeonError:  # it does not apply to this network
                continue
            for order in ([other, *operations], [*operations, other]):
                names = ", ".join(operation.name for operation in order)
                try:
                    edited = apply(build().eval(), order).eval()
                except PluginError as error:
                    raise AssertionError(f"{names}: {error}") from error
                except SurgeonError:
                    continue
                try:
                    run(edited, (args, dict(kwargs or {})))
                except Exception as error:
                    raise AssertionError(
                        f"{names}: the network does not run ({type(error).__name__}: {error}). Find sites and shapes "
                        "through surgery when apply runs, or refuse with an OperationError what cannot follow."
                    ) from error
                worked.append(names)
    if not worked:
        raise AssertionError("no order with another operation works; pass others that apply to this network")
    return worked


def _usual_operations() -> list[Operation]:
    return [
        ReplaceHead(classes=3),
        Freeze(up_to="@blocks[0]"),
        GradientReversal(at="@blocks[0]"),
        Multitask(tasks={"second": {"classes": 4}}),  # type: ignore[dict-item]
        Insert(at="@blocks[0]"),
    ]


def _checked(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    arguments: Arguments,
    loss: Callable[[nn.Module], torch.Tensor] | None,
) -> nn.Module:
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    edited = apply(model, operations, seed=1).eval()
    _same_state(model.state_dict(), before, "the input network was changed: edit through surgery, not the original")
    again = apply(model, operations, seed=1).eval()
    drawn = "the same seed gave other values: draw with torch, in surgery.fill or in a module's __init__"
    _same_state(edited.state_dict(), again.state_dict(), drawn)
    _same_state(unsaved_state(edited), unsaved_state(again), drawn)
    facts = prepare(model, operations, seed=1).plan.tensors  # a plan alone makes no choices by weights
    kept = {fact.name: str(fact.source) for fact in facts if fact.origin == "kept" and str(fact.source) in before}
    _check_kept(edited, before, kept, "")
    _check_kept(apply(model, operations, seed=2), before, kept, " with another seed")
    case = Case(
        original=model,
        edited=edited,
        arguments=arguments,
        names=", ".join(operation.name for operation in operations),
        new=frozenset(fact.name for fact in facts if fact.origin != "kept"),
        kept=kept,
        loss=loss,
    )
    check_tree(case)
    state = copy.deepcopy(edited.state_dict())
    try:
        expected = run(edited, arguments)
    except Exception as error:
        raise AssertionError(
            f"the edited network does not run on the given args and kwargs: {type(error).__name__}: {error}"
        ) from error
    _same_output(run(copy.deepcopy(edited), arguments), expected, "a deepcopy")
    check_behaviour(case)
    with tempfile.TemporaryDirectory() as folder:
        path = save(edited, Path(folder) / "artifact")
        reloaded = load(path, arch=build)
        _same_state(reloaded.state_dict(), edited.state_dict(), "saving and loading changed values")
        _same_output(run(reloaded, arguments), expected, "the reloaded artifact")
    check_training_step(case)
    _same_state(edited.state_dict(), state, "training a copy of the network changed the network: they share a tensor")
    return edited


def _check_kept(model: nn.Module, before: Mapping[str, torch.Tensor], kept: Mapping[str, str], when: str) -> None:
    state = model.state_dict()
    for name, source in kept.items():
        if not torch.equal(state[name], before[source]):
            raise AssertionError(f"{name} should be kept, but its values differ from {source}{when}")


def _same_state(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], complaint: str) -> None:
    if actual.keys() != expected.keys():
        raise AssertionError(f"{complaint}: {sorted(actual.keys() ^ expected.keys())[:5]}")
    for name, tensor in expected.items():
        if not same([actual[name]], [tensor]):
            raise AssertionError(f"{complaint}: {name}")


def _same_output(actual: list[torch.Tensor], expected: list[torch.Tensor], what: str) -> None:
    if not same(actual, expected):
        raise AssertionError(
            f"{what} gives other outputs: what decides about them is not in the state dict, the fields of the "
            "operation or the arguments of its modules"
        )
