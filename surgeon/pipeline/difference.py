"""Describe how two networks differ: by tensor, site and block. ``surgeon.cli.render.comparison`` draws it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from surgeon.interfaces.html_table import html_report, html_table
from surgeon.pipeline.movement import Movement

NOISE = 1e-12
"""The rounding error of a cosine's sums in double precision."""

Status = Literal["only in A", "only in B", "other shape", "other dtype", "moved", "same", "not compared"]


@dataclass(frozen=True)
class TensorDiff:
    """One tensor of A, B or both.

    Attributes:
        name: Its name in B, or in A if only A has it.
        status: The first difference: presence, shape, dtype, values. A tensor of another dtype may have moved too.
        name_a: Its name in A; None if only B has it.
        shape_a: Its shape in A.
        shape_b: Its shape in B.
        dtype_a: Its dtype in A.
        dtype_b: Its dtype in B.
        frozen_a: Whether it is frozen in A; None if unknown.
        frozen_b: Whether it is frozen in B; None if unknown.
        made_by: The operation that made or changed it since A, if B's manifest says so.
        movement: How far its values moved; None if they were not compared.
        parameter: Whether it counts in the movement of its site and block: parameters do; if it is unknown whether it
            is a parameter, any floating-point tensor does.
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
        """Whether its values differ; another shape or dtype alone does not count."""
        return self.status == "moved" or (self.movement is not None and self.movement.squared_step > 0)

    @property
    def frozen(self) -> bool | None:
        """Whether it is frozen in B, or in A if that is unknown."""
        return self.frozen_a if self.frozen_b is None else self.frozen_b

    @property
    def state_changed(self) -> bool:
        """Whether it is frozen in one network and trainable in the other."""
        return None not in (self.frozen_a, self.frozen_b) and self.frozen_a != self.frozen_b

    def to_dict(self) -> dict[str, Any]:
        """Convert it to JSON-able data."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "movement"]
        return {**{name: getattr(self, name) for name in names}, "moved": self.moved, **_numbers(self.movement)}


@dataclass(frozen=True)
class GroupDiff:
    """The tensors of a site or block.

    Attributes:
        name: Its site; ``.`` is the whole network.
        tensors: Its tensors.
        movement: How far its parameters moved, as one vector; None if none were compared.
    """

    name: str
    tensors: tuple[TensorDiff, ...]
    movement: Movement | None

    @property
    def moved(self) -> int:
        """How many of its tensors moved, with buffers."""
        return sum(tensor.moved for tensor in self.tensors)

    @property
    def compared(self) -> int:
        """How many of its tensors were compared by value."""
        return sum(tensor.movement is not None for tensor in self.tensors)

    @property
    def state(self) -> str:
        """``frozen``, ``trainable``, ``partly frozen``, or ``""`` if unknown; ``A → B`` if it changed."""
        after = _state([tensor.frozen for tensor in self.tensors if tensor.parameter])
        if any(tensor.state_changed for tensor in self.tensors):
            return f"{_state([tensor.frozen_a for tensor in self.tensors if tensor.parameter])} → {after}"
        return after

    @property
    def other(self) -> int:
        """How many of its tensors are in one network only, or have another shape or dtype."""
        return sum(tensor.status not in ("same", "moved", "not compared") for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Convert it to JSON-able data, with tensors by name."""
        names = [tensor.name for tensor in self.tensors]
        sums = {"moved": self.moved, "compared": self.compared, "other": self.other, "state": self.state}
        return {"name": self.name, "tensors": names, **sums, **_numbers(self.movement)}


@dataclass(frozen=True)
class Diff:
    """The difference of two networks.

    Attributes:
        a: The location of A.
        b: The location of B.
        architecture_a: What builds A before its operations; None if unknown.
        architecture_b: What builds B before its operations; None if unknown.
        tensors: All tensors of both, in the order of B; those of A only come last.
        blocks: The tensors by block; outside blocks, by part of the network.
        sites: The tensors by site.
        values: Whether values were compared.
        notes: Remarks about opening and pairing.
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
        """Whether everything compared is equal: structure, known training state and, byte for byte, values."""
        return not any(tensor.status not in ("same", "not compared") or tensor.state_changed for tensor in self.tensors)

    @property
    def whole(self) -> GroupDiff:
        """All tensors as one group."""
        return group(".", self.tensors)

    @property
    def frozen_moved(self) -> tuple[TensorDiff, ...]:
        """Frozen tensors whose values differ although no operation made them; training should not have changed them."""
        return tuple(t for t in self.tensors if t.frozen and t.moved and t.made_by is None)

    def with_status(self, *status: Status) -> tuple[TensorDiff, ...]:
        """Return the tensors with one of these statuses."""
        return tuple(tensor for tensor in self.tensors if tensor.status in status)

    def to_dict(self) -> dict[str, Any]:
        """Convert the comparison to JSON-able data."""
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
            (g.name, f"{g.moved} of {g.compared}", *map(figure, _ratios(g.movement)), g.other or "", g.state)
            for g in self.blocks
        ]
        head = ("block", "moved", "relative", "cosine", "largest", "other form", "state")
        title = f"{self.a} and {self.b} {'are equal' if self.equal else 'differ'}"
        moved = [f"frozen, and moved: {tensor.name}" for tensor in self.frozen_moved]
        return html_report(title, html_table(head, rows), notes=[*moved, *self.notes])


def figure(number: float | None) -> str:
    """Format a number to three figures; a cosine just below 1 is never shown as 1. Empty for None."""
    if number is None:
        return ""
    if 0.999 < number < 1 - NOISE:
        return f"1 − {1 - number:.1e}"
    return "0" if number == 0 else f"{number:.3g}"


def group(name: str, tensors: tuple[TensorDiff, ...]) -> GroupDiff:
    """Group tensors; those that are parameters and were compared by value move as one vector."""
    counted = [tensor.movement for tensor in tensors if tensor.parameter and tensor.movement is not None]
    return GroupDiff(name, tensors, sum(counted, Movement()) if counted else None)


def _state(frozen: list[bool | None]) -> str:
    if not frozen or None in frozen:
        return ""
    return "frozen" if all(frozen) else "partly frozen" if any(frozen) else "trainable"


def _ratios(movement: Movement | None) -> tuple[float | None, float | None, float | None]:
    return (movement.relative, movement.cosine, movement.largest) if movement is not None else (None, None, None)


def _numbers(movement: Movement | None) -> dict[str, Any]:
    relative, cosine, largest = _ratios(movement)
    return {
        "relative": relative,
        "cosine": cosine,
        "largest": largest,
        "not_finite": movement.not_finite if movement is not None else None,
    }
