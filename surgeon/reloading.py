"""Whether what was written is, loaded again, the network that it was written from.

How far that is checked depends on the size, so that checking never takes much longer than writing did:

======================  ==========================================================================
up to :data:`RUN`       every tensor is compared to the byte with its origin (a kept one with the source's),
                        and a forward of the network in memory with one of the network loaded again
up to :data:`COMPARED`  every kept tensor is compared to the byte with the source's
beyond                  an even sample of the kept tensors of about that size is compared
======================  ==========================================================================

Always, the operations are replayed on a skeleton and every tensor has to have its place. A network that was
trained is in memory in any case: it is checked in full, whatever its size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon import engine
from surgeon.checkpoint.source import open_source
from surgeon.checkpoint.weights import fill, tensors_of
from surgeon.errors import OperationError, VerificationError
from surgeon.graph.inputs import Inputs, find_inputs
from surgeon.graph.rungs import lent
from surgeon.plugins import Plugins
from surgeon.preparing import Prepared

RUN = 10**9
"""Bytes of tensors up to which both networks are held in memory and run."""
COMPARED = 2 * 10**9
"""Bytes of tensors up to which all kept ones are compared; beyond, as many as come to about this."""

HINT = "this is a bug in surgeon or in a plugin's operation"


@dataclass(frozen=True)
class Reload:
    """What was found equal.

    Attributes:
        tensors: How many tensors equal their origin to the byte.
        total: How many there are; those that were not compared all have their places.
        outputs: How many tensors both networks gave in a forward, all of them equal; None if none was run.
        note: Why less than all was compared.
    """

    tensors: int
    total: int
    outputs: int | None
    note: str | None = None


def check_streamed(prepared: Prepared, path: Path, plugins: Plugins) -> Reload:
    """Check what :meth:`Prepared.write` wrote to ``path``.

    Raises:
        VerificationError: It differs from what it was written from.
        SurgeonError: It cannot be loaded.
    """
    size = sum(tensor.nbytes for tensor in prepared.flow.tensors.values())
    if size <= RUN:
        return check_in_memory(prepared.materialise(), prepared, path, plugins)
    engine.verify(path, plugins=plugins)
    written = open_source(path, plugins=plugins).checkpoint
    assert written is not None  # verify has seen to it
    kept = [name for name in prepared.flow.tensors if prepared.flow.entry(name) is not None]
    held = sum(prepared.flow.tensors[name].nbytes for name in kept)
    step = max(1, -(-held // COMPARED))
    _compare(kept[::step], written.read, prepared.flow.value, path)
    left_out = f"of {size / 1e9:.1f} GB, 1 of {step} kept tensors" if step > 1 else "only kept tensors"
    return Reload(
        len(kept[::step]), len(prepared.flow.tensors), None, f"{left_out} compared; no forward past {RUN / 1e9:g} GB"
    )


def check_in_memory(model: nn.Module, prepared: Prepared, path: Path, plugins: Plugins) -> Reload:
    """Check what was written to ``path`` from ``model``.

    Raises:
        VerificationError: It differs from ``model``.
        SurgeonError: It cannot be loaded.
    """
    loaded = engine.load(path, plugins=plugins)
    own, again = dict(tensors_of(model)), dict(tensors_of(loaded))
    if wrong := sorted(own.keys() ^ again.keys()):
        raise _wrong(path, f"loads with other tensors than it was written from: {', '.join(wrong[:3])}")
    _compare(list(own), again.__getitem__, own.__getitem__, path)
    surgeries = prepared.record.surgeries
    try:
        found = find_inputs(model, surgeries[-1].inputs if surgeries else None, families=plugins.families())
    except OperationError as error:
        return Reload(len(own), len(own), None, f"no forward: {error.message}")
    met = ""
    for inputs in (found, *found.alternatives):
        try:
            expected = _forward(model, inputs, again)
        except Exception as error:  # whatever a network raises on inputs that do not suit it
            met = met or _first_line(error)
            continue
        try:
            outputs = _forward(loaded, inputs, again)
        except Exception as error:
            raise _wrong(path, f"loads as a network that does not run: {_first_line(error)}") from error
        _compare_outputs(outputs, expected, path)
        return Reload(len(own), len(own), len(expected))
    return Reload(len(own), len(own), None, f"no forward: inputs {found.origin} do not run ({met})")


def _compare(
    names: Sequence[str], again: Callable[[str], torch.Tensor], own: Callable[[str], torch.Tensor], path: Path
) -> None:
    wrong = [name for name in names if not engine.same_bytes(again(name), own(name).cpu())]
    if wrong:
        raise _wrong(path, f"loads with other tensors than it was written from: {', '.join(wrong[:3])}")


def _forward(model: nn.Module, inputs: Inputs, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that ``model`` returns in eval mode, by the path to each.

    It is lent ``tensors`` for the time: equal ones that lie differently in memory may be summed in another order.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    args, kwargs = inputs.tensors("cpu", dtype)
    with lent(model, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fill(model, lambda name: tensors[name].detach())
        inputs.set(model)
        torch.manual_seed(0)
        return dict(_tensors(model(*args, **kwargs), ""))


def _tensors(value: Any, at: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in an output by the path to each; a cache of keys and values is none."""
    if isinstance(value, torch.Tensor):
        yield at or "output", value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _tensors(item, f"{at}.{key}" if at else str(key))


def _compare_outputs(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], path: Path) -> None:
    wrong = sorted(found.keys() ^ expected.keys())
    wrong += [name for name in expected if name in found and not engine.same_bytes(found[name], expected[name])]
    if wrong:
        raise _wrong(path, f"gives other outputs than the network it was written from: {', '.join(wrong[:3])}")


def _wrong(path: Path, what: str) -> VerificationError:
    return VerificationError(what, where=str(path), hint=HINT)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
