"""Another checkpoint than the one that is operated on, from which single tensors are taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from surgeon.architectures.source import open_source
from surgeon.checkpoint.formats import Checkpoint, open_checkpoint
from surgeon.errors import ArchitectureError, CheckpointError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


@dataclass
class Donor:
    """Named tensors, none of them read yet.

    Attributes:
        location: What the user called it.
        checkpoint: Its tensors.
        entries: Name of a tensor in the donor's network → entry of the checkpoint.
        notes: What was found out while opening.
    """

    location: str
    checkpoint: Checkpoint
    entries: dict[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """A digest of its tensor names, shapes and dtypes."""
        return self.checkpoint.fingerprint()

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor; None where there is none of that name."""
        entry = self.entries.get(name)
        return None if entry is None else tuple(self.checkpoint.entries[entry].shape)

    def read(self, name: str) -> torch.Tensor:
        """The values of the tensor ``name``; they are read now."""
        return self.checkpoint.read(self.entries[name])


def open_donor(reference: str, plugins: Plugins) -> Donor:
    """Open whatever surgeon takes for a model, without reading a weight; no pickle in it is executed.

    Its tensors are called as in its network (an artifact's as after its surgery). Where the network is not
    known, by the names in the file.

    Raises:
        CheckpointError: It is missing, damaged or unsafe.
        ArchitectureError: It is unknown, or has no weights.
    """
    try:
        source = open_source(reference, plugins=plugins)
    except ArchitectureError:
        if not Path(reference).exists():
            raise
        checkpoint = open_checkpoint(reference)
        note = f"{reference}: its network is not known; tensors go by their names in the file"
        return Donor(reference, checkpoint, _by_own_names(checkpoint), [note])
    if source.checkpoint is None:
        raise CheckpointError(
            f"{reference} names no weights: what could be taken from it is as random as a new initialisation",
            hint=f"name its weights, for example {reference}@DEFAULT, or use reinit",
        )
    entries = source.mapping if source.mapping is not None else _by_own_names(source.checkpoint)
    return Donor(reference, source.checkpoint, dict(entries))


def _by_own_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Every entry under its name; in an artifact a tied tensor stands once, and its manifest has the other names."""
    names = {name: name for name in checkpoint.entries}
    aliases = (checkpoint.manifest or {}).get("aliases", {})
    return names | {alias: name for alias, name in aliases.items() if name in names}
