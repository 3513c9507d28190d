"""Describe as data what surgery would change: the plan. ``surgeon.cli.render`` prints it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from surgeon.interfaces.html_table import html_report, html_table
from surgeon.recipe.reach import Reach


@dataclass(frozen=True)
class TensorFact:
    """Describe one tensor of the result and where its values come from."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    origin: Literal["kept", "derived", "new"]
    source: str | None = None
    """For a kept tensor, its name in the source; for a borrowed one, the checkpoint and the name in it."""
    by: str | None = None
    """The operation that made it, for a derived or new one."""
    parameter: bool = True
    """False for a buffer."""
    trainable: bool = True


@dataclass(frozen=True)
class Edit:
    """Describe one line of a diff: ``-`` removed, ``+`` added, ``~`` changed."""

    mark: Literal["-", "+", "~"]
    site: str
    what: str
    parameters: int = 0


@dataclass(frozen=True)
class Step:
    """Describe what one operation does."""

    operation: str
    edits: tuple[Edit, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Describe the result of surgery on a model, before any weight is read."""

    source: str
    architecture: str
    steps: tuple[Step, ...]
    tensors: tuple[TensorFact, ...]
    """Every tensor of the result, in the order of ``state_dict``; a tied tensor stands once."""
    dropped: tuple[TensorFact, ...]
    """Every tensor of the source that the result does not need."""
    outputs: dict[str, tuple[int, ...]]
    """The named outputs and their shapes at the traced input; ``{}`` if nothing was traced."""
    notes: tuple[str, ...] = ()
    """Remarks from loading, and how sites were traced."""
    bytes_read: int = 0
    """The bytes to read from the source and from other checkpoints, each tensor once; those that operations looked at
    for the plan are among them."""
    reaches: tuple[Reach, ...] = ()
    """What the recipe names outside itself: files, the network, code."""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Count the parameters of the result."""
        return sum(prod(t.shape) for t in self.tensors if t.parameter)

    @property
    def trainable(self) -> int:
        """Count the trainable parameters of the result."""
        return sum(prod(t.shape) for t in self.tensors if t.parameter and t.trainable)

    @property
    def parameters_before(self) -> int:
        """Count the parameters of the source."""
        kept_facts = {t.source: t for t in self.tensors if t.origin == "kept" and t.parameter}
        return sum(prod(t.shape) for t in [*kept_facts.values(), *self.dropped] if t.parameter)

    @property
    def bytes_written(self) -> int:
        """Sum the bytes of tensors that the artifact will hold."""
        return sum(t.nbytes for t in self.tensors)

    @property
    def counts(self) -> str:
        """Summarise the origins of all tensors: ``318 of 320 tensors kept, 2 new by replace_head``."""
        kept_count = sum(t.origin == "kept" for t in self.tensors)
        text = f"{kept_count} of {kept_count + len(self.dropped)} tensors kept"
        for origin in ("derived", "new"):
            by_operation: dict[str, int] = {}
            for tensor in self.tensors:
                if tensor.origin == origin:
                    by_operation[tensor.by or "?"] = by_operation.get(tensor.by or "?", 0) + 1
            text += "".join(f", {count} {origin} by {by}" for by, count in by_operation.items())
        return text

    def to_dict(self) -> dict[str, Any]:
        """Convert the plan to JSON-able data, with its sums."""
        sums = ("parameters", "parameters_before", "trainable", "bytes_read", "bytes_written", "counts")
        facts = dataclasses.asdict(self)
        facts.pop("bytes_read")  # it stands among the sums
        return {**facts, **{name: getattr(self, name) for name in sums}}

    def _repr_html_(self) -> str:
        """Show the edits, operation by operation, as a table in a notebook."""
        edits = [
            (step.operation if number == 0 else "", edit.mark, edit.site or ".", edit.what, edit.parameters or "")
            for step in self.steps
            for number, edit in enumerate(step.edits or (Edit("~", "", "nothing changes"),))
        ]
        sums = [
            ("parameters", f"{self.parameters_before:,} → {self.parameters:,}, {self.trainable:,} of them train"),
            ("tensors", self.counts),
            ("bytes", f"{self.bytes_read:,} to read, {self.bytes_written:,} to write"),
            *((f"output {name}", " × ".join(map(str, shape))) for name, shape in self.outputs.items()),
        ]
        title = self.architecture + (f" from {self.source}" if self.source != self.architecture else "")
        notes = [note for step in self.steps for note in step.notes] + [*map(str, self.reaches), *self.notes]
        changes = html_table(("operation", "", "site", "what", "parameters"), edits)
        return html_report(title, changes, html_table(("", ""), sums), notes=notes)
