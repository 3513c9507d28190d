"""Reload a written artifact, and check that it is the network that was written.

How much is compared depends on the size, so that checking never takes much more time or memory than writing:

======================  ===================================================================================
up to :data:`RUN`       every tensor byte for byte with its origin (a kept one with the source's), and a forward
                        of the network with a forward of the reloaded network
up to :data:`COMPARED`  every kept tensor byte for byte with the source's
beyond                  the first and last bytes of every kept tensor, up to that sum
======================  ===================================================================================

The operations are always replayed on a skeleton, and every tensor must belong to it. A trained network is in memory
anyway, so it is checked like a small one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from surgeon.checkpoint.artifact_files import CONFIG
from surgeon.checkpoint.contents import ByteRange, Checkpoint, read_bytes
from surgeon.errors import PluginError, VerificationError, counted
from surgeon.families.inputs import Inputs
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.record import Record
from surgeon.pipeline import api as engine
from surgeon.pipeline.nonfinite import count_nonfinite
from surgeon.pipeline.prepare import Prepared
from surgeon.pipeline.progress_bars import no_progress_bars
from surgeon.pipeline.reference_outputs import RUN, Reference, first_line, forward, run_before_writing
from surgeon.plugins import Plugins
from surgeon.surgery.inspection import inspection_of
from surgeon.surgery.opened import OpenOptions
from surgeon.surgery.replay import open_network

COMPARED = 2**26
"""How many bytes of kept tensors to compare with the source's."""
CHUNK = 2**22
"""How many bytes to read at a time."""

HINT = "this is a bug in surgeon or in a plugin's operation"


@dataclass(frozen=True)
class Reload:
    """The result of the check: everything that was compared is equal.

    Attributes:
        tensors: How many tensors are byte-identical with their origin; the others were not compared.
        total: How many tensors there are; all belong to the network.
        outputs: How many tensors a forward of both networks returned, all equal; None if none was run.
        note: Why not everything was compared.
    """

    tensors: int
    total: int
    outputs: int | None
    note: str | None = None
    nonfinite: Mapping[str, int] = field(default_factory=dict)
    """NaN and infinite values by tensor; of networks that were compared whole."""

    def __str__(self) -> str:
        checked = f"{self.tensors}" if self.tensors == self.total else f"{self.tensors} of {self.total}"
        equal = f"{checked} tensors"
        if self.outputs is not None:
            equal += f" and {counted(self.outputs, 'output')} of a forward"
        return f"{equal} are byte-identical" + (f" ({self.note})" if self.note else "")


def check_streamed(prepared: Prepared, path: Path, plugins: Plugins, reference: Reference | None = None) -> Reload:
    """Check the artifact that :meth:`Prepared.write` wrote to ``path``.

    Raises:
        VerificationError: The artifact differs from what was written.
        SurgeonError: The artifact cannot be loaded.
    """
    if reference is not None:
        return check_in_memory(prepared.model, prepared, path, plugins, reference)
    tensors = prepared.flow.tensors
    if sum(tensor.nbytes for tensor in tensors.values()) <= RUN:
        return check_in_memory(prepared.materialise(), prepared, path, plugins)
    written = open_network(path, OpenOptions(plugins=plugins, strict=True))
    assert written.checkpoint is not None  # an artifact has tensors
    written.flow().check()
    source = prepared.source.checkpoint
    entries = {name: entry for name, tensor in tensors.items() if (entry := _stored(prepared, name, tensor))}
    size = sum(tensors[name].nbytes for name in entries)
    budget = None if size <= COMPARED else COMPARED // len(entries)
    different = [
        name
        for name, entry in entries.items()
        if source and not _same_stored((written.checkpoint, name), (source, entry), budget)
    ]
    if different:
        raise _mismatch(path, f"holds other values than {prepared.source.location}: {', '.join(different[:3])}")
    note = f"no forward past {RUN / 1e6:.0f} MB"
    if budget is not None:
        note += f"; of kept tensors the first and last {budget // 2 / 1e3:,.0f} kB"
    return Reload(len(entries), len(tensors), None, note)


class Recorded(Protocol):
    """An object with the record of how a network was made."""

    record: Record


def check_in_memory(
    model: nn.Module, prepared: Recorded, path: Path, plugins: Plugins, reference: Reference | None = None
) -> Reload:
    """Check the artifact that was written to ``path`` from ``model``.

    Raises:
        VerificationError: The artifact differs from ``model``.
        SurgeonError: The artifact cannot be loaded.
    """
    if reference is None:
        reference = run_before_writing(model, inspection_of(model, plugins, prepared.record.surgeries))
    loaded = engine.load_opened(open_network(path, OpenOptions(plugins=plugins, strict=True)))
    written, again = dict(tensors_of(model)), dict(tensors_of(loaded))
    if wrong := sorted(written.keys() ^ again.keys()):
        raise _mismatch(path, f"loads with other tensors than were written: {', '.join(wrong[:3])}")
    if wrong := [name for name in written if not engine.same_bytes(again[name], written[name].cpu())]:
        raise _mismatch(path, f"loads with other values than were written: {', '.join(wrong[:3])}")
    nonfinite = count_nonfinite(again.items())
    if reference.inputs is None:
        return Reload(len(written), len(written), None, f"no forward: {reference.refusal}", nonfinite)
    try:
        outputs = forward(loaded, reference.inputs, reference.tensors)
    except Exception as error:
        raise _mismatch(path, f"loads as a network that does not run: {first_line(error)}") from error
    _compare_outputs(outputs, reference.outputs, path)
    architecture = prepared.record.architecture
    provider = plugins.architectures().get(architecture.scheme) if architecture is not None else None
    _check_stock(model, provider, reference.inputs, reference.tensors, reference.outputs, path)
    return Reload(len(again), len(again), len(reference.outputs), None, nonfinite)


def _check_stock(
    model: nn.Module,
    provider: ArchitectureProvider | None,
    inputs: Inputs,
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    path: Path,
) -> None:
    """Check that the library alone loads the same network, if the artifact has a config.json."""
    if not (path / CONFIG).is_file():
        return
    by_itself: Any = getattr(type(model), "from_pretrained", None)
    load = by_itself or (provider.load_stock if provider is not None else None)
    if load is None:
        return
    way = "from_pretrained" if by_itself else f"{provider.scheme} alone"  # type: ignore[union-attr]
    try:
        with no_progress_bars():
            stock = load(path).eval()
        values = stock.state_dict()
        if any(name in values and values[name].dtype != tensor.dtype for name, tensor in tensors.items()):
            return  # from_pretrained converts a network of several dtypes to one
        outputs = forward(stock, inputs, tensors)
    except PluginError:  # it says what the provider lacks
        raise
    except Exception as error:
        raise _mismatch(path, f"cannot be loaded by {way}: {first_line(error)}") from error
    if wrong := [n for n in tensors if n not in values or not engine.same_bytes(values[n], tensors[n].cpu())]:
        raise _mismatch(path, f"gives other values by {way}: {', '.join(wrong[:3])}")
    _compare_outputs(outputs, expected, path)


def _stored(prepared: Prepared, name: str, tensor: torch.Tensor) -> str | None:
    """Return the source's entry with the bytes of a tensor; None for a new, derived or cast tensor."""
    source, entry = prepared.source.checkpoint, prepared.flow.entry(name)
    if source is None or entry is None or source.entries[entry].dtype != tensor.dtype:
        return None
    return entry


def _same_stored(one: tuple[Checkpoint, str], other: tuple[Checkpoint, str], budget: int | None) -> bool:
    """Return whether two entries have the same bytes, or the same first and last bytes beyond ``budget``."""
    stored = [checkpoint.entries[name].stored() for checkpoint, name in (one, other)]
    if not all(stored):
        return engine.same_bytes(one[0].read(one[1]), other[0].read(other[1]))
    length, other_length = (sum(span.length for span in spans) for spans in stored)
    if length != other_length:
        return False
    half = length if budget is None else budget // 2
    parts = [(0, length)] if length <= 2 * half else [(0, half), (length - half, length)]
    for start, end in parts:
        for at in range(start, end, CHUNK):
            size = min(CHUNK, end - at)
            pieces = [read_bytes(list(_between(spans, at, at + size))) for spans in stored]
            if not _equal(*pieces):
                return False
    return True


def _between(spans: Iterable[ByteRange], start: int, end: int) -> Iterator[ByteRange]:
    """Yield the parts of consecutive ``spans`` between two positions."""
    at = 0
    for span in spans:
        first, last = max(start - at, 0), min(end - at, span.length)
        if first < last:
            yield span.part(first, last - first)
        at += span.length


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    # as words and with numpy: torch.equal compares byte by byte, in threads that wait for each other
    words = len(one) // 8 * 8
    heads = [tensor[:words].numpy().view(np.int64) for tensor in (one, other)]
    return np.array_equal(heads[0], heads[1]) and torch.equal(one[words:], other[words:])


def _compare_outputs(outputs: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], path: Path) -> None:
    wrong = sorted(outputs.keys() ^ expected.keys())
    wrong += [name for name in expected if name in outputs and not engine.same_bytes(outputs[name], expected[name])]
    if wrong:
        raise _mismatch(path, f"gives other outputs than the network that was written: {', '.join(wrong[:3])}")


def _mismatch(path: Path, message: str) -> VerificationError:
    return VerificationError(message, where=str(path), hint=HINT)
