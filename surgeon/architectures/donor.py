"""Open a second checkpoint to take single tensors from."""

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
    """Named tensors of another network, read on request.

    Attributes:
        location: The user's name for it.
        checkpoint: Its tensors.
        entries: Name in the donor's network → entry of the checkpoint.
        notes: Remarks about opening it.
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
        """Return the shape of a tensor; None if it does not exist."""
        entry = self.entries.get(name)
        return None if entry is None else tuple(self.checkpoint.entries[entry].shape)

    def read(self, name: str) -> torch.Tensor:
        """Read the values of the tensor ``name``."""
        return self.checkpoint.read(self.entries[name])


def open_donor(reference: str, plugins: Plugins) -> Donor:
    """Open any form of model without reading weights or executing pickles.

    Tensors have their names in the network (for an artifact, after its surgery), or in the file if the network is
    unknown.

    Raises:
        CheckpointError: The donor is missing, damaged or unsafe.
        ArchitectureError: The donor is unknown, or has no weights.
    """
    try:
        source = open_source(reference, plugins=plugins)
    except ArchitectureError:
        if not Path(reference).exists():
            raise
        checkpoint = open_checkpoint(reference)
        note = f"{reference}: unknown network; tensors are named as in the file"
        return Donor(reference, checkpoint, _by_own_names(checkpoint), [note])
    if source.checkpoint is None:
        raise CheckpointError(
            f"{reference} has no weights, so its values are as random as a new initialisation",
            hint=f"add weights, for example {reference}@DEFAULT, or use reinit",
        )
    entries = source.mapping if source.mapping is not None else _by_own_names(source.checkpoint)
    return Donor(reference, source.checkpoint, dict(entries))


def _by_own_names(checkpoint: Checkpoint) -> dict[str, str]:
    """Map every entry by its name; an artifact stores a tied tensor once, and its manifest has the other names."""
    names = {name: name for name in checkpoint.entries}
    aliases = (checkpoint.manifest or {}).get("aliases", {})
    return names | {alias: name for alias, name in aliases.items() if name in names}
