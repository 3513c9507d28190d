"""Hold predictions for words: the class of each word of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from surgeon.data.labels import IGNORED
from surgeon.training.predictions import Predictions, shown


@dataclass(frozen=True)
class WordPredictions(Predictions):
    """The classes that a network predicts for words; ``values`` are the shares of a sample's words of each class.

    A word that the tokenizer drops, or that lies past the longest text, has no class: None in lists, empty in tables.

    Attributes:
        words: The words of each sample; empty texts where only their number is known.
    """

    words: tuple[list[str], ...] = ()

    @property
    def classes(self) -> list[Any]:
        """The class name of each word, for each sample."""
        return [
            [None if number == IGNORED else self.names[number] for number in place.tolist()] for place in self.places
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each sample, as for other predictions, and ``words``."""
        return [{**row, "words": list(words)} for row, words in zip(super().rows, self.words, strict=True)]

    def to_table(self) -> list[list[str]]:
        """Return a header, and a row for each word, as for a CSV file."""
        labelled = self.labels is not None
        parts = ["part"] if self.parts else []
        table = [["sample", *parts, "word", "class", *(["label"] if labelled else [])]]
        for number, (words, classes) in enumerate(zip(self.words, self.classes, strict=True)):
            labels = self.labels[number] if self.labels is not None else None
            if not isinstance(labels, list) or len(labels) != len(words):
                labels = [labels] * len(words)
            start = [self.samples[number], *([self.parts[number]] if self.parts else [])]
            for word, name, label in zip(words, classes, labels, strict=True):
                table.append([*start, word, shown(name), *([shown(label)] if labelled else [])])
        return table

    def _headings(self) -> Sequence[str]:
        return ("words and their classes",)

    def _cells(self, number: int) -> list[str]:
        pairs = zip(self.words[number], self.classes[number], strict=True)
        return [" ".join(f"{word}/{shown(name) or '?'}" for word, name in pairs)]
