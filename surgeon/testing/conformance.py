"""Check operations against surgeon's promises, on a network of the author's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.registered import registered
from surgeon.interfaces.returned import is_ours
from surgeon.operations import Freeze, GradientReversal, Insert, Multitask, ReplaceHead
from surgeon.pipeline.api import apply, plan
from surgeon.testing.compilation import check_compile, check_export
from surgeon.testing.promises import PROMISES, SLOW_PROMISES, case_of
from surgeon.testing.runs import Loss, run


def check_operations(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Loss | None = None,
) -> nn.Module:
    """Apply ``operations`` to the network that ``build`` makes, and check surgeon's promises.

    The input network is unchanged. Every tensor is accounted for and kept ones are byte-identical. The same seed gives
    the same values. New modules can be copied, pickled and moved; a copy and a reloaded artifact give equal outputs.
    Samples of a batch stay apart, any batch size runs, modes are left alone, NaN is passed on, and what ran in bfloat16
    still does. Training changes trainable tensors and no frozen ones, and every new one gets a gradient. What the
    network did not keep to before, it need not keep to afterwards. The classes need not be installed.

    :func:`check_compilation` and :func:`check_composition` check more, and take longer.

    Args:
        build: Makes the network, the same one on each call.
        operations: The operations.
        args: Positional arguments of a forward of the edited network.
        kwargs: Keyword arguments of the forward.
        loss: Computes a scalar from the edited network, if its training forward needs other arguments (a detector needs
            targets). Default: a distance of its outputs.

    Returns:
        The edited network in eval mode, before training.

    Raises:
        AssertionError: A promise is broken; the message says which, and how to mend it.
        SurgeonError: surgeon refuses the operations; values written into a skeleton are, for instance.
    """
    with registered(*_foreign(operations)):
        case = case_of(build, operations, (args, dict(kwargs or {})), loss)
        for check in PROMISES.values():
            check(case)
        return case.edited


def check_compilation(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Compile the edited network with ``torch.compile`` in one graph, and export it, where the original takes both.

    Args:
        build: Makes the network, the same one on each call.
        operations: The operations.
        args: Positional arguments of a forward of the edited network.
        kwargs: Keyword arguments of the forward.

    Raises:
        AssertionError: The original compiles or exports and the edited network does not, or gives other outputs.
    """
    with registered(*_foreign(operations)):
        case = case_of(build, operations, (args, dict(kwargs or {})))
        check_compile(case)
        check_export(case)


def check_promise(
    promise: str,
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Loss | None = None,
) -> None:
    """Check one promise of :data:`PROMISES` or :data:`SLOW_PROMISES`; the pytest plugin makes a test of each."""
    with registered(*_foreign(operations)):
        {**PROMISES, **SLOW_PROMISES}[promise](case_of(build, operations, (args, dict(kwargs or {})), loss))


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
    with registered(*_foreign(operations)):
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


def _foreign(operations: Sequence[Operation]) -> list[type[Operation]]:
    return list(dict.fromkeys(type(operation) for operation in operations if not is_ours(operation)))


def _usual_operations() -> list[Operation]:
    return [
        ReplaceHead(classes=3),
        Freeze(up_to="@blocks[0]"),
        GradientReversal(at="@blocks[0]"),
        Multitask(tasks={"second": {"classes": 4}}),  # type: ignore[dict-item]
        Insert(at="@blocks[0]"),
    ]
