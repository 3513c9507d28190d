"""What has to be known of a network to make samples for it. Read from the network by ``training``; no torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing

CLASS_LOSS = "cross_entropy"
NEXT_TOKEN, MASKED, SEQUENCES = "next_token", "masked", "sequences"
"""How a language model predicts tokens: the next one, those that are masked, or one sequence from another."""
NUMBER_LOSSES = ("bce", "mse", "huber", "cosine")
"""Losses that compare numbers: their labels are never numbered as classes."""


@dataclass(frozen=True)
class Head:
    """The output that a label column trains."""

    loss: str | None = CLASS_LOSS
    """Its loss; None where it is not known."""
    count: int | None = None
    """The number of its classes, where it is known."""
    names: tuple[str, ...] = ()
    """The names of its classes in order, where it has any."""
    partial: bool = False
    """Whether the data may lack some of them, as of a head that scores classes by what they are like."""


@dataclass(frozen=True)
class Network:
    """What the data have to fit."""

    heads: Mapping[str, Head] = field(default_factory=dict)
    """By label column."""
    positions: int | None = None
    """How many tokens a text may have; None where nothing limits it."""
    vocabulary: int | None = None
    """How many tokens the embedding knows."""
    language: str | None = None
    """How it predicts tokens: ``next_token``, ``masked`` or ``sequences``; None where it does not, or is not known."""
    preprocessing: Preprocessing = UNKNOWN
    """How its checkpoint has samples prepared."""

    def head(self, label: str) -> Head:
        """The output that ``label`` trains; one of which nothing is known where there is none."""
        return self.heads.get(label, Head(loss=None))


ANY = Network()
"""A network of which nothing is known."""
