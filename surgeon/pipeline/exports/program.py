"""Trace a network with torch.export and dynamic sizes, and name the site that cannot be traced."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree

from surgeon.errors import ExportError
from surgeon.pipeline.exports.call import Call, first_line


@dataclass(frozen=True)
class Dynamic:
    """Which sizes of an export are dynamic.

    Attributes:
        batch: Dimension 0 of every input.
        length: Dimension 1 of every input of tokens.
    """

    batch: bool
    length: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the dynamic sizes."""
        return tuple(name for name in ("batch", "length") if getattr(self, name))


def ways(call: Call) -> Iterator[Dynamic]:
    """Yield the combinations to try, the most dynamic first, the static one last."""
    if call.batch is not None and call.length is not None:
        yield Dynamic(batch=True, length=True)
    if call.batch is not None:
        yield Dynamic(batch=True, length=False)
    yield Dynamic(batch=False, length=False)


def trace_program(call: Call, dynamic: Dynamic) -> ExportedProgram:
    """Trace the network into a program.

    Raises:
        ExportError: The network cannot be traced; the error names the site.
    """
    # DYNAMIC infers the range from the network: GPT-2's positions end at 1024
    sizes = {at: Dim.DYNAMIC for at, name in enumerate(("batch", "length")) if name in dynamic.names}
    # clones: torch marks tensors as dynamic, and a second attempt would see the first one's marks
    args, kwargs = _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, call.traced)
    values = (*args, *kwargs.values())
    described = [_pytree.tree_map(lambda leaf: _sizes_of(leaf, sizes), value) for value in values]
    shapes = dict(zip(call.parameters, described, strict=True)) if sizes else None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(call.network, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        site = failing_site(error, call.network.model)
        raise ExportError(
            f"torch.export cannot trace it: {_reason(error)}",
            where=site,
            hint="end or cut the network before that site, or use --to state-dict" if site else "use --to state-dict",
        ) from error


def _reason(error: BaseException) -> str:
    """Return the relevant line of the error: the first listed one for violated constraints."""
    listed = [line.strip() for line in str(error).splitlines() if line.strip().startswith("- ")]
    if listed and "Constraints violated" in str(error):
        return listed[0].removeprefix("- ").partition(". ")[0]
    return first_line(error)


def _sizes_of(leaf: Any, sizes: dict[int, Any]) -> dict[int, Any] | None:
    return dict(sizes) if isinstance(leaf, torch.Tensor) else None


def write_program(call: Call, path: Path, dynamic: Dynamic) -> None:
    """Write the program as a ``.pt2`` file.

    Raises:
        ExportError: The network cannot be traced, or torch cannot save the program.
    """
    program = trace_program(call, dynamic)
    try:
        torch.export.save(program, path)
    except Exception as error:
        raise ExportError(f"torch.export cannot save the program: {first_line(error)}") from error


def failing_site(error: BaseException, model: nn.Module) -> str | None:
    """Return the innermost module of ``model`` whose code raised ``error``; None if it was raised elsewhere."""
    names = {id(module): name for name, module in model.named_modules()}
    site = None
    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            name = names.get(id(frame.f_locals.get("self")))
            site = name if name else site
        cause = cause.__cause__ or cause.__context__
    return site
