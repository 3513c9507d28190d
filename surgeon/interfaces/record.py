"""How a model was made: the part of an artifact's manifest that travels with the model in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from surgeon.checkpoint.companions import Companion
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTE = "surgeon_record"
FORMAT = 2
"""The form of a manifest that this surgeon writes; it reads all up to this one. 1: no digests, numbered answers."""


class Surgeries(BaseModel):
    """One recipe as it was applied: enough to replay it on a skeleton, and to say what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    operations: list[dict[str, Any]]
    """Each operation's fields and, under ``op``, its name."""
    seed: int = 0
    """The seed of what was new."""
    roles: dict[str, Any] = Field(default_factory=dict)
    """Overrides of roles."""
    inputs: Any = None
    """Override of the traced inputs."""
    answers: dict[str, Any] = Field(default_factory=dict)
    """What tracing found, so that a replay need not trace."""
    source: str = ""
    """What the recipe was applied to."""
    text: str = ""
    """The recipe as its author wrote it."""
    kept: dict[str, str] = Field(default_factory=dict)
    """The tensors that came through unchanged, with their names in the source."""
    made: dict[str, str] = Field(default_factory=dict)
    """The tensors that an operation derived or made anew, with the operation's name."""
    derived: list[str] = Field(default_factory=list)
    """Those of ``made`` that were derived from the source's or a donor's values, and are not new."""
    plugins: dict[str, str] = Field(default_factory=dict)
    """The operations and sources of data that are not surgeon's own, with the plugin that each came from."""
    donors: dict[str, str] = Field(default_factory=dict)
    """The other checkpoints that tensors were borrowed from, with their fingerprints."""


class Record(BaseModel):
    """What a model was made from, and how."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    architecture: Architecture | None
    """What builds the network before surgery; None for a module that only its author can build."""
    source: str
    """Where the weights came from."""
    fingerprint: str | None = None
    """A digest of the source's tensor names, shapes and dtypes."""
    notes: list[str] = Field(default_factory=list)
    """What was found out while loading: prefixes stripped, twins of the architecture."""
    surgeries: list[Surgeries] = Field(default_factory=list)
    training: list[dict[str, Any]] = Field(default_factory=list)
    preprocessing: dict[str, Any] = Field(default_factory=dict)
    """How samples become its input (``pictures``, ``videos``, ``sounds``), where that is not in the files beside the
    weights: torchvision's transforms, timm's data config, or what training used."""
    _companions: tuple[Companion, ...] = PrivateAttr(default=())

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The files that belong beside the weights; the manifest holds their digests, not them."""
        return self._companions

    def carry(self, companions: Iterable[Companion]) -> None:
        """Keep the files that belong beside the weights, so that they are written with the model."""
        self._companions = tuple(companions)


def record_of(model: nn.Module) -> Record | None:
    """The record that surgeon attached to ``model``; None where surgeon did not make it."""
    return getattr(model, ATTRIBUTE, None)
