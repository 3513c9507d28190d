"""How two networks differ, as data: by tensor, by site and by block. ``surgeon.cli.render.comparison`` draws it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from surgeon.interfaces.html_table import html_report, html_table
from surgeon.pipeline.movement import Movement

NOISE = 1e-12
"""What double precision may lose in the sums of a cosine."""

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
        return group(".", self.tensors)

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
        wrong = [f"frozen, and moved: {tensor.name}" for tensor in self.frozen_moved]
        return html_report(title, html_table(head, rows), notes=[*wrong, *self.notes])


def figure(number: float | None) -> str:
    """A measure to three figures; a cosine just below 1 never reads as 1. Nothing for None."""
    if number is None:
        return ""
    if 0.999 < number < 1 - NOISE:
        return f"1 − {1 - number:.1e}"
    return "0" if number == 0 else f"{number:.3g}"


def group(name: str, tensors: tuple[TensorDiff, ...]) -> GroupDiff:
    """Take tensors together: those whose values were compared and that are parameters move as one vector."""
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
