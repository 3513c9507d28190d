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
FORMAT = 3
"""The form of a manifest that this surgeon writes; it reads all up to this one. 1: no digests, numbered answers. 2: no
defaults and versions of operations, no outputs."""


class Resolved(BaseModel):
    """Record everything that decides what one operation does, beside the network."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fields: dict[str, Any]
    """Every field of the operation, those at their defaults included."""
    version: int = 1
    """The ``version`` of the operation's class."""
    distribution: str = ""
    """The distribution that the operation came from; empty for a file or module that is not installed."""
    release: str = ""
    """The version of that distribution."""


class Surgeries(BaseModel):
    """Record one applied recipe: enough to replay it on a skeleton, and a summary of the result."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    operations: list[dict[str, Any]]
    """Each operation's fields that differed from their defaults and, under ``op``, its name: as in a recipe."""
    resolved: list[Resolved] = Field(default_factory=list)
    """The same operations with every field and the versions of their code; empty in formats 1 and 2."""
    seed: int = 0
    """The seed for new tensors."""
    roles: dict[str, str | list[str]] = Field(default_factory=dict)
    """Overrides of roles."""
    inputs: Any = None
    """Override of the traced inputs."""
    answers: dict[str, Any] = Field(default_factory=dict)
    """What tracing showed, so that a replay need not trace."""
    source: str = ""
    """What the recipe was applied to."""
    text: str = ""
    """The recipe as its author wrote it."""
    kept: dict[str, str] = Field(default_factory=dict)
    """The unchanged tensors, with their names in the source."""
    made: dict[str, str] = Field(default_factory=dict)
    """The new and derived tensors, with the name of the operation that made them."""
    derived: list[str] = Field(default_factory=list)
    """Those of ``made`` that were derived from values of the source or a donor."""
    plugins: dict[str, str] = Field(default_factory=dict)
    """The operations and sources of data that are not surgeon's own, with the plugin that each came from."""
    donors: dict[str, str] = Field(default_factory=dict)
    """The other checkpoints that tensors were copied from, with their fingerprints."""


class Record(BaseModel):
    """Record what a model was made from, and how."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    architecture: Architecture | None
    """What builds the network before surgery; None if surgeon cannot build it."""
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
