"""Encode pairs of texts, and texts that are lists of words, which may have one label per word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgeon.data.labels import IGNORED
from surgeon.data.texts import Texts, not_a_text
from surgeon.errors import TrainingError

WORD_IDS = "word_ids"
"""The column with the word of each token, -1 for none; it is not an input of the network."""


@dataclass
class TextPairs(Texts):
    """Encode two columns of texts as a pair, which the tokenizer separates.

    Attributes:
        second: The column of the second text.
    """

    second: str = ""
    added = 4

    @classmethod
    def of(cls, texts: Texts, second: str) -> TextPairs:
        """Return ``texts`` with a second column."""
        return cls(texts.column, texts.tokenizer, texts.max_length, texts.arguments, second)

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [self.column, self.second]

    @property
    def example(self) -> Any:
        """A value that can be encoded."""
        return ("a", "a")

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return both texts of a row."""
        return (row[self.column], row[self.second])

    def whole(self, rows: Any) -> list[Any]:
        """Return both texts of every row."""
        return list(zip(rows[self.column][:], rows[self.second][:], strict=True))

    def encode(self, values: Sequence[Any], *, cut: bool = True) -> Any:
        """Return the tokenizer's output for several pairs; the longer text is cut first."""
        first, second = [pair[0] or "" for pair in values], [pair[1] or "" for pair in values]
        if not cut:
            return self.tokenizer(first, second, truncation=False, verbose=False)
        return self.tokenizer(first, second, truncation=True, max_length=self.max_length)

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a pair."""
        return not_a_text(self.column, value[0]) or not_a_text(self.second, value[1])


@dataclass
class Words(Texts):
    """Encode lists of words, which a tokenizer splits further, and record the word of each piece.

    Attributes:
        tags: The columns of lists with one label per word.
    """

    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, texts: Texts, tags: Sequence[str]) -> Words:
        """Return ``texts`` for lists of words.

        Raises:
            TrainingError: The tokenizer does not give the word of each piece.
        """
        if not texts.tokenizer.is_fast:
            raise TrainingError(
                f"{texts.column!r} has lists of words; {type(texts.tokenizer).__name__} does not map pieces to words",
                where="train.data.tokenizer",
                hint="use a fast tokenizer: one with a tokenizer.json",
            )
        return cls(texts.column, texts.tokenizer, texts.max_length, texts.arguments, tuple(tags))

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [self.column, *self.tags]

    @property
    def example(self) -> Any:
        """A value that can be encoded."""
        return ["a"]

    @property
    def names(self) -> list[str]:
        """The columns of the batch, without that of words."""
        return [name for name in super().names if name != WORD_IDS]

    def encode(self, values: Sequence[Any], *, cut: bool = True) -> Any:
        """Return the tokenizer's output for several lists of words."""
        words = [list(value or ()) for value in values]
        if not cut:
            return self.tokenizer(words, truncation=False, verbose=False, is_split_into_words=True)
        return self.tokenizer(words, truncation=True, max_length=self.max_length, is_split_into_words=True)

    def tensors(self, encoded: Any) -> list[dict[str, Tensor]]:
        """Return one sample per list of words, with the word of each piece."""
        samples = super().tensors(encoded)
        for row, sample in enumerate(samples):
            words = [-1 if word is None else word for word in encoded.word_ids(row)]
            sample[WORD_IDS] = torch.tensor(words, dtype=torch.long)
        return samples

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a list of words."""
        wrong = next((word for word in value or () if not isinstance(word, str)), None)
        if wrong is not None or (value and None in value):
            return f"{self.column!r} has the word {wrong!r}, which is not a text"
        return None

    def problems(self, rows: Any, vocabulary: int | None) -> dict[int, str]:
        """Return what is wrong with rows: their words, or a list of labels of another length."""
        problems = super().problems(rows, vocabulary)
        words = [len(row or ()) for row in rows[self.column][:]]
        for column in self.tags:
            for place, (count, tags) in enumerate(zip(words, rows[column][:], strict=True)):
                if tags is not None and len(tags) != count:
                    problems.setdefault(place, f"{self.column!r} has {count} words and {column!r} {len(tags)} labels")
        return problems


def label_first_pieces(labels: Tensor, words: Tensor) -> Tensor:
    """Give the label of each word to its first piece; -100 to its other pieces and to tokens without a word.

    Args:
        labels: ``(words,)``.
        words: The word of each piece ``(pieces,)``, -1 for none.
    """
    before = torch.cat([words.new_full((1,), -1), words[:-1]])
    first = (words >= 0) & (words != before) & (words < len(labels))
    targets = torch.full_like(words, IGNORED)
    targets[first] = labels[words[first]].to(targets.dtype)
    return targets


def holds_words(rows: Any, column: str) -> bool:
    """Return whether a column of a ``datasets.Dataset`` has lists of texts."""
    from pyarrow import types

    kind = rows.features.arrow_schema.field(column).type
    if not (types.is_list(kind) or types.is_large_list(kind)):
        return False
    return bool(types.is_string(kind.value_type) or types.is_large_string(kind.value_type))
