"""Describe what samples must fit: heads, limits, preprocessing. ``training`` reads it from a network; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing

LABELS = "labels"
"""What the labels are called that no setting names: folders of classes, masks."""
BOXES, CROWD, MASKS, SIZES = "boxes", "crowd", "masks", "sizes"
"""What a detector's samples hold beside pictures and labels: boxes in pixels, which of them are crowds, a mask of each,
and the size of the picture."""
CLASS_LOSS = "cross_entropy"
NEXT_TOKEN, MASKED, SEQUENCES = "next_token", "masked", "sequences"
"""How a language model predicts tokens: the next one, masked ones, or one sequence from another."""
DECODED = "decoder_input_ids"
"""The argument for what the decoder has written so far."""
NUMBER_LOSSES = ("bce", "mse", "huber", "cosine")
"""Losses that compare numbers; their labels are never class numbers."""


@dataclass(frozen=True)
class Head:
    """The output that a label column trains."""

    loss: str | None = CLASS_LOSS
    """Its loss; None if unknown."""
    count: int | None = None
    """Its number of classes, if known."""
    names: tuple[str, ...] = ()
    """The names of its classes in order, if it has any."""
    partial: bool = False
    """Whether the data may lack classes, as for a head that scores classes by their attributes."""


@dataclass(frozen=True)
class Network:
    """What the data must fit."""

    heads: Mapping[str, Head] = field(default_factory=dict)
    """By label column."""
    positions: int | None = None
    """The most tokens of a text; None without a limit."""
    context: int | None = None
    """The most tokens of a text in its training, by its config; rotary positions can be counted beyond it."""
    vocabulary: int | None = None
    """The number of tokens in the embedding."""
    language: str | None = None
    """How it predicts tokens: ``next_token``, ``masked`` or ``sequences``; None if it does not, or if unknown."""
    decoder_start: int | None = None
    """The token that what a decoder writes begins with."""
    preprocessing: Preprocessing = UNKNOWN
    """The preprocessing of its checkpoint."""
    detector: str | None = None
    """The library of a network that detects boxes, ``torchvision`` or ``transformers``; None for other networks."""
    masks: bool = False
    """Whether a detector predicts the masks of its boxes."""
    refusal: str | None = None
    """Why a network that detects boxes cannot be trained on them; None if it can, or if it detects none."""

    def head(self, label: str) -> Head:
        """Return the output that ``label`` trains; an unknown one if there is none."""
        return self.heads.get(label, Head(loss=None))


ANY = Network()
"""An unknown network."""
