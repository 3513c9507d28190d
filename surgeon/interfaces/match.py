"""How well a checkpoint fits an architecture."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint

# A file with fewer of a network's tensors than this share is taken for something else.
COVERAGE = 0.25


@dataclass
class Fit:
    """The tensors of a skeleton set against those of a file."""

    mapping: dict[str, str] = field(default_factory=dict)
    """Skeleton name → name of the entry in the file; a tied name maps to its twin's entry."""
    missing: list[str] = field(default_factory=list)
    """Skeleton names for which the file has nothing."""
    unexpected: list[str] = field(default_factory=list)
    """Entries of the file that the skeleton has no place for."""
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    """Skeleton name → (its shape, the file's)."""
    filled: list[str] = field(default_factory=list)
    """Counters absent from the file, to be filled with 0."""
    dropped: list[str] = field(default_factory=list)
    """Entries of the file that are known to be superfluous."""

    @property
    def cost(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    @property
    def contained(self) -> bool:
        """True when every tensor of the file has its place, and there are enough of them."""
        expected = len(self.mapping) + len(self.missing)
        return not self.unexpected and not self.misshaped and len(self.mapping) >= COVERAGE * expected

    def leave_out(self, names: Collection[str]) -> None:
        """Count ``names`` among the superfluous entries instead of the unexpected ones."""
        self.dropped.extend(name for name in self.unexpected if name in names)
        self.unexpected = [name for name in self.unexpected if name not in names]

    def counts(self) -> str:
        """``3 missing, 1 unexpected``; ``fits`` when nothing is wrong."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names) or "fits"

    def notes(self) -> list[str]:
        """What a person should know of the entries that do not correspond one to one."""
        notes = []
        if self.filled:
            notes.append(f"{len(self.filled)} num_batches_tracked absent from the file: filled with 0")
        if self.dropped:
            notes.append(f"{len(self.dropped)} tensors of the file have no place and are left out: {few(self.dropped)}")
        return notes


@dataclass
class Match:
    """An architecture for a checkpoint, and how the two fit."""

    architecture: Architecture
    checkpoint: Checkpoint
    """The checkpoint with wrappers' prefixes stripped, so that ``fit.mapping`` names its entries."""
    skeleton: nn.Module
    fit: Fit
    notes: list[str] = field(default_factory=list)
    changed: bool = False
    """Whether it is the provider's network with a part rebuilt or left out: an exact match comes before it."""


def few(names: Iterable[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
