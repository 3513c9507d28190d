"""Handle outputs with one class per word or pixel of a sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from surgeon.data.word_texts import WORD_IDS

DENSE = ("words", "pixels")
CLASSES = {"words": -1, "pixels": 1}
"""The dimension of the classes in an output."""
PICTURES = "pixel_values"


def kind_of_places(output: Tensor, batch: Mapping[str, Tensor]) -> str | None:
    """Return ``words`` or ``pixels`` for an output with classes of each; None for other outputs."""
    if output.ndim == 3 and WORD_IDS in batch and output.shape[:2] == batch[WORD_IDS].shape:
        return "words"
    if output.ndim == 4 and PICTURES in batch:
        return "pixels"
    return None


def classes_of_places(output: Tensor, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the class number of each word ``(words,)`` or pixel ``(height, width)`` of each sample."""
    if output.ndim == 3:
        best = output.argmax(-1)
        return [row[first].cpu() for row, first in zip(best, first_pieces(batch[WORD_IDS]), strict=True)]
    size = batch[PICTURES].shape[-2:]
    whole = torch.nn.functional.interpolate(output, size=size, mode="bilinear", align_corners=False)
    return list(whole.argmax(1).cpu())


def shares_of(places: Tensor, classes: int) -> Tensor:
    """Return the share of places of each class ``(classes,)``."""
    return torch.bincount(places.reshape(-1), minlength=classes) / max(1, places.numel())


def first_pieces(words: Tensor) -> Tensor:
    """Mark the first piece of each word ``(batch, pieces)``, from the word of each piece, -1 for none."""
    before = torch.cat([words.new_full((len(words), 1), -1), words[:, :-1]], dim=1)
    return (words >= 0) & (words != before)
