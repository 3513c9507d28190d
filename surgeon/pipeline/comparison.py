"""Compare two networks: what is in one only, what has another form, and how far each tensor moved.

:func:`diff` opens both without reading a weight, pairs their tensors (:mod:`surgeon.pipeline.pairing`) and reads them
two pieces at a time (:mod:`surgeon.pipeline.movement`), so that memory does not grow with the size of the networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.contents import Entry
from surgeon.errors import CheckpointError, SiteError, name_nearest_option
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.pipeline.movement import CHUNK, Movement, compare
from surgeon.pipeline.pairing import Side, ancestors, open_side, pair
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.opened import Model, OpenOptions

Status = Literal["only in A", "only in B", "other shape", "other dtype", "moved", "same", "not compared"]


@dataclass(frozen=True)
class TensorDiff:
    """One tensor of A, of B or of both.

    Attributes:
        name: Its name in B; in A where only A has it.
        status: What differs first: presence, shape, dtype, values. A tensor of another dtype may have moved too.
        name_a: Its name in A; None where only B has it.
        shape_a: Its shape in A.
        shape_b: Its shape in B.
        dtype_a: Its dtype in A.
        dtype_b: Its dtype in B.
        frozen_a: Whether training leaves it as it is in A; None where that is not known.
        frozen_b: The same in B.
        made_by: The operation that made or changed it since A, where B's manifest says so.
        movement: How far its values moved; None where they were not compared.
        parameter: Whether it counts in the movement of its site and block: a parameter; where that is not known, any
            tensor of floating-point numbers.
    """

    name: str
    status: Status
    name_a: str | None = None
    shape_a: tuple[int, ...] | None = None
    shape_b: tuple[int, ...] | None = None
    dtype_a: str | None = None
    dtype_b: str | None = None
    frozen_a: bool | None = None
    frozen_b: bool | None = None
    made_by: str | None = None
    movement: Movement | None = None
    parameter: bool = True

    @property
    def moved(self) -> bool:
        """Whether its values differ; a shape or dtype alone does not count."""
        return self.status == "moved" or (self.movement is not None and self.movement.squared_step > 0)

    @property
    def frozen(self) -> bool | None:
        """Whether it is frozen in B; in A, where B does not say."""
        return self.frozen_a if self.frozen_b is None else self.frozen_b

    @property
    def state_changed(self) -> bool:
        """Whether it is frozen in one of the two and trains in the other."""
        return None not in (self.frozen_a, self.frozen_b) and self.frozen_a != self.frozen_b

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able data."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "movement"]
        return {**{name: getattr(self, name) for name in names}, "moved": self.moved, **_numbers(self.movement)}


@dataclass(frozen=True)
class GroupDiff:
    """The tensors of a site, or of a block.

    Attributes:
        name: Its address; ``.`` is the whole network.
        tensors: The tensors in it.
        movement: How far its parameters moved, taken as one vector; None where none was compared.
    """

    name: str
    tensors: tuple[TensorDiff, ...]
    movement: Movement | None

    @property
    def moved(self) -> int:
        """How many of its tensors moved, buffers included."""
        return sum(tensor.moved for tensor in self.tensors)

    @property
    def compared(self) -> int:
        """How many of its tensors have values that were compared."""
        return sum(tensor.movement is not None for tensor in self.tensors)

    @property
    def state(self) -> str:
        """``frozen``, ``trainable``, ``partly frozen``, or nothing where it is not known; ``A → B`` if it changed."""
        after = _state([tensor.frozen for tensor in self.tensors if tensor.parameter])
        if any(tensor.state_changed for tensor in self.tensors):
            return f"{_state([tensor.frozen_a for tensor in self.tensors if tensor.parameter])} → {after}"
        return after

    @property
    def other(self) -> int:
        """How many of its tensors only one network has, or have another shape or dtype."""
        return sum(tensor.status not in ("same", "moved", "not compared") for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able data, its tensors by name."""
        names = [tensor.name for tensor in self.tensors]
        sums = {"moved": self.moved, "compared": self.compared, "other": self.other, "state": self.state}
        return {"name": self.name, "tensors": names, **sums, **_numbers(self.movement)}


@dataclass(frozen=True)
class Diff:
    """How two networks differ.

    Attributes:
        a: What was compared.
        b: With what.
        architecture_a: What builds A before its operations; None where that is not known.
        architecture_b: What builds B before its operations; None where that is not known.
        tensors: Every tensor of both, in the order of B, those that only A has last.
        blocks: The same by block; outside of blocks, by part of the network.
        sites: The same by site.
        values: Whether values were compared, or the structure only.
        notes: What was noticed while opening and pairing.
    """

    a: str
    b: str
    architecture_a: str | None
    architecture_b: str | None
    tensors: tuple[TensorDiff, ...]
    blocks: tuple[GroupDiff, ...]
    sites: tuple[GroupDiff, ...]
    values: bool = True
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether nothing that was compared differs: structure, known training state and, to the byte, values."""
        return not any(tensor.status not in ("same", "not compared") or tensor.state_changed for tensor in self.tensors)

    @property
    def whole(self) -> GroupDiff:
        """All tensors as one group."""
        return _group(".", self.tensors)

    @property
    def frozen_moved(self) -> tuple[TensorDiff, ...]:
        """Frozen tensors whose values differ though no operation made them: training should not have moved them."""
        return tuple(t for t in self.tensors if t.frozen and t.moved and t.made_by is None)

    def with_status(self, *status: Status) -> tuple[TensorDiff, ...]:
        """The tensors with one of these statuses."""
        return tuple(tensor for tensor in self.tensors if tensor.status in status)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-able data."""
        return {
            "equal": self.equal,
            "a": {"location": self.a, "architecture": self.architecture_a},
            "b": {"location": self.b, "architecture": self.architecture_b},
            "values": self.values,
            "only_a": [tensor.name for tensor in self.with_status("only in A")],
            "only_b": [tensor.name for tensor in self.with_status("only in B")],
            "other_shape": [tensor.name for tensor in self.with_status("other shape")],
            "other_dtype": [t.name for t in self.tensors if t.dtype_a and t.dtype_b and t.dtype_a != t.dtype_b],
            "moved": [tensor.name for tensor in self.tensors if tensor.moved],
            "frozen_moved": [tensor.name for tensor in self.frozen_moved],
            "state_changed": [tensor.name for tensor in self.tensors if tensor.state_changed],
            "whole": _numbers(self.whole.movement),
            "blocks": [group.to_dict() for group in self.blocks],
            "sites": [group.to_dict() for group in self.sites],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        """Show the blocks as a table in a notebook."""
        rows = [
            (g.name, f"{g.moved} of {g.compared}", *map(figure, _shown(g.movement)), g.other or "", g.state)
            for g in self.blocks
        ]
        head = ("block", "moved", "relative", "cosine", "largest", "other form", "state")
        title = f"{self.a} and {self.b} {'are equal' if self.equal else 'differ'}"
        return html_report(title, html_table(head, rows), notes=self.notes)


def figure(number: float | None) -> str:
    """A measure to three figures; a cosine just below 1 never reads as 1. Nothing for None."""
    if number is None:
        return ""
    if 0.999 < number < 1:
        return f"1 − {1 - number:.1e}"
    return "0" if number == 0 else f"{number:.3g}"


@name_nearest_option
def diff(
    a: Model,
    b: Model,
    *,
    select: str | None = None,
    values: bool = True,
    progress: Callable[[int], None] | None = None,
    arch_a: str | None = None,
    arch_b: str | None = None,
    key_a: str | None = None,
    key_b: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | None = None,
) -> Diff:
    """Compare two networks: structure, training state, and how far each tensor moved.

    Tensors are read in pieces, so that memory does not grow with the networks. Names are those of the networks where
    both are known, else those in the files; of an artifact that was made from the other, the manifest says which tensor
    is which.

    Args:
        a: A path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory.
        b: The same, of what came later.
        select: A selector: compare only what is at or below its sites, in either network.
        values: False compares names, shapes, dtypes and training state only, and reads no weight.
        progress: Called with a number of bytes each time some of A and B have been read.
        arch_a: What builds A, where it does not say.
        arch_b: What builds B, where it does not say.
        key_a: Which of several state dicts in A to take.
        key_b: Which of several state dicts in B to take.
        trust_pickle: Let pickles in the files run code.
        trust_code: Modules that a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        CheckpointError: One is missing, damaged or unsafe, or has no values to compare.
        ArchitectureError: A reference that names no file cannot be built.
        SiteError: ``select`` names nothing in either network.
    """
    plugins = with_trust(plugins or load_plugins(), trust_code, a, b, arch_a, arch_b)
    side_a, side_b = (
        open_side(model, OpenOptions(arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins))
        for model, arch, key in ((a, arch_a, key_a), (b, arch_b, key_b))
    )
    for side in (side_a, side_b):
        if values and not side.values:
            raise CheckpointError(
                "it has no weights, so how far tensors moved cannot be said",
                where=side.location,
                hint="compare the structure only: --structure, or values=False in Python",
            )
    pairing = pair(side_a, side_b)
    chosen_a, chosen_b = _selected(side_a, side_b, select)
    partner = {name: of_a for of_a, name in pairing.pairs}
    tensors = []
    for name in side_b.entries:
        of_a = partner.get(name)
        if name not in chosen_b and of_a not in chosen_a:
            continue
        if of_a is not None or name not in side_a.filled:
            made = pairing.made.get(name)
            tensors.append(_tensor(side_a, side_b, of_a, name, made, values, progress or (lambda _: None)))
    paired = set(partner.values())
    lone = [name for name in side_a.entries if name not in paired and name not in side_b.filled and name in chosen_a]
    tensors += [_tensor(side_a, side_b, name, None, None, values, lambda _: None) for name in lone]
    labels_a, labels_b = _Blocks(side_a.blocks()), _Blocks(side_b.blocks())
    notes = [f"{letter}: {note}" for letter, side in (("A", side_a), ("B", side_b)) for note in side.notes]
    return Diff(
        side_a.location,
        side_b.location,
        side_a.architecture,
        side_b.architecture,
        tuple(tensors),
        _groups(tensors, lambda t: (labels_a if t.status == "only in A" else labels_b).label(t.name)),
        _groups(tensors, lambda t: t.name.rpartition(".")[0] or "."),
        values,
        (*notes, *([pairing.note] if pairing.note else [])),
    )


def _selected(a: Side, b: Side, selector: str | None) -> tuple[set[str], set[str]]:
    if selector is None:
        return set(a.entries), set(b.entries)
    chosen: list[set[str]] = [set(), set()]
    with suppress(SiteError):
        chosen[0] = a.select(selector)
    try:
        chosen[1] = b.select(selector)
    except SiteError:
        if not chosen[0]:
            raise
    if not any(chosen):
        raise SiteError(f"what {selector!r} names has no tensors", hint="see: surgeon inspect MODEL --select SELECTOR")
    return chosen[0], chosen[1]


def _tensor(
    a: Side,
    b: Side,
    name_a: str | None,
    name_b: str | None,
    made: str | None,
    values: bool,
    read: Callable[[int], None],
) -> TensorDiff:
    one = a.entries[name_a] if name_a is not None else None
    other = b.entries[name_b] if name_b is not None else None
    movement: Movement | None = None
    status: Status
    if other is None:
        status = "only in A"
    elif one is None:
        status = "only in B"
    elif one.shape != other.shape:
        status = "other shape"
    elif not values:
        status = "not compared" if one.dtype == other.dtype else "other dtype"
    else:
        assert name_a is not None
        assert name_b is not None
        same, movement = compare(a.chunks(name_a, CHUNK), b.chunks(name_b, CHUNK))
        status = "other dtype" if one.dtype != other.dtype else "same" if same else "moved"
        read(one.nbytes + other.nbytes)
    return TensorDiff(
        name_b or name_a or "",
        status,
        name_a,
        *(entry and entry.shape for entry in (one, other)),
        *(entry and str(entry.dtype).removeprefix("torch.") for entry in (one, other)),
        *(
            name in side.frozen if name and side.frozen is not None else None
            for side, name in ((a, name_a), (b, name_b))
        ),
        made_by=made,
        movement=movement,
        parameter=_is_parameter(b, name_b, other) if other is not None else _is_parameter(a, name_a, one),
    )


def _is_parameter(side: Side, name: str | None, entry: Entry | None) -> bool:
    if side.parameters is not None:
        return name in side.parameters
    return entry is not None and entry.dtype.is_floating_point


class _Blocks:
    """Says in which block a tensor lies, or in which part of the network beside the blocks."""

    def __init__(self, sites: Iterable[str]) -> None:
        self.sites = set(sites)
        self.around = {above for site in self.sites for above in ancestors(site)}

    def label(self, name: str) -> str:
        path = list(reversed(ancestors(name)))
        block = next((site for site in path if site in self.sites), None)
        return block or next((site for site in path if site not in self.around and site), path[-1] or ".")


def _groups(tensors: Iterable[TensorDiff], label: Callable[[TensorDiff], str]) -> tuple[GroupDiff, ...]:
    groups: dict[str, list[TensorDiff]] = {}
    for tensor in tensors:
        groups.setdefault(label(tensor), []).append(tensor)
    return tuple(_group(name, tuple(members)) for name, members in groups.items())


def _group(name: str, tensors: tuple[TensorDiff, ...]) -> GroupDiff:
    counted = [tensor.movement for tensor in tensors if tensor.parameter and tensor.movement is not None]
    return GroupDiff(name, tensors, sum(counted, Movement()) if counted else None)


def _state(frozen: list[bool | None]) -> str:
    if not frozen or None in frozen:
        return ""
    return "frozen" if all(frozen) else "partly frozen" if any(frozen) else "trainable"


def _shown(movement: Movement | None) -> tuple[float | None, float | None, float | None]:
    return (movement.relative, movement.cosine, movement.largest) if movement is not None else (None, None, None)


def _numbers(movement: Movement | None) -> dict[str, Any]:
    relative, cosine, largest = _shown(movement)
    return {
        "relative": relative,
        "cosine": cosine,
        "largest": largest,
        "not_finite": movement.not_finite if movement is not None else None,
    }
