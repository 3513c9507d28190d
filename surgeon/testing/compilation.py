"""Check that what compiled and exported before surgery still does, and gives the same outputs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import nn

from surgeon.testing.runs import Arguments, Case, close, copied, run, tensors_in

Outputs = list[torch.Tensor]


def check_compile(case: Case) -> None:
    """Compile the edited network with ``torch.compile`` (``backend="eager"``, ``fullgraph=True``).

    Raises:
        AssertionError: The original network compiles and the edited one does not, or gives other outputs.
    """
    _check(
        case,
        _compiled,
        "compiles in one graph (torch.compile, fullgraph=True)",
        "Does {names} branch on a tensor's values, call .item() or print, or hook a function that is not a module's "
        "method? Compute with torch.where and masks, and read sizes from x.shape.",
    )


def check_export(case: Case) -> None:
    """Export the edited network with ``torch.export``.

    Raises:
        AssertionError: The original network exports and the edited one does not, or gives other outputs.
    """
    _check(
        case,
        _exported,
        "exports (torch.export)",
        "Does {names} branch on a tensor's values, keep state outside buffers, or return a class that torch.export "
        "does not know? Use torch.where, register_buffer, and return tensors, tuples or dicts.",
    )


def _check(case: Case, way: Callable[[nn.Module, Arguments], Outputs], ability: str, advice: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not _works(case.original, way, case.arguments):
            return
        try:
            outputs = way(case.edited, case.arguments)
        except Exception as error:
            reason = " ".join(str(error).split())[:240]
            raise AssertionError(
                f"the original network {ability}, the edited one does not ({type(error).__name__}: {reason}). "
                + advice.format(names=case.names)
            ) from error
    if not _same(outputs, run(case.edited, case.arguments)):
        raise AssertionError(
            f"the original network {ability}; the edited one does too, and then gives other outputs. "
            + advice.format(names=case.names)
        )


def _works(model: nn.Module, way: Callable[[nn.Module, Arguments], Outputs], arguments: Arguments) -> bool:
    try:
        way(model, arguments)
    except Exception:  # the author's network may raise anything, and may take other inputs than the edited one
        return False
    return True


def _compiled(model: nn.Module, arguments: Arguments) -> Outputs:
    torch._dynamo.reset()
    try:
        args, kwargs = copied(arguments)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            compiled = torch.compile(copy.deepcopy(model).eval(), backend="eager", fullgraph=True)
            return tensors_in(compiled(*args, **kwargs))
    finally:
        torch._dynamo.reset()


def _exported(model: nn.Module, arguments: Arguments) -> Outputs:
    args, kwargs = copied(arguments)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        program = torch.export.export(copy.deepcopy(model).eval(), args, kwargs)
        return run(program.module(), arguments)


def _same(outputs: Outputs, expected: Outputs) -> bool:
    return len(outputs) == len(expected) and all(close(a, b) for a, b in zip(outputs, expected, strict=True))
