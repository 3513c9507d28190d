"""Handle outputs with one class per word or pixel of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from surgeon.data.labels import IGNORED
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


def by_word(values: Tensor, word_ids: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Return the value of each word's first piece ``(words,)`` of each sample.

    A word without a piece has -100: the tokenizer drops it, or it lies past the longest text.

    Args:
        values: Integers ``(samples, pieces)``.
        word_ids: The word of each piece ``(samples, pieces)``, -1 for none.
        counts: How many words each sample has.
    """
    of_words = []
    for row, words, first, count in zip(values, word_ids, first_pieces(word_ids), counts, strict=True):
        of_words.append(row.new_full((count,), IGNORED))
        of_words[-1][words[first]] = row[first]
    return [row.cpu() for row in of_words]


def classes_of_pixels(output: Tensor, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the class number of each pixel ``(height, width)`` of each sample."""
    size = batch[PICTURES].shape[-2:]
    resized = torch.nn.functional.interpolate(output, size=size, mode="bilinear", align_corners=False)
    return list(resized.argmax(1).cpu())


def shares_of(places: Tensor, classes: int) -> Tensor:
    """Return the share of places of each class ``(classes,)``, among those that have a class."""
    numbers = places[places != IGNORED]
    return torch.bincount(numbers, minlength=classes) / max(1, numbers.numel())


def first_pieces(words: Tensor) -> Tensor:
    """Mark the first piece of each word ``(batch, pieces)``, from the word of each piece, -1 for none."""
    before = torch.cat([words.new_full((len(words), 1), -1), words[:, :-1]], dim=1)
    return (words >= 0) & (words != before)
