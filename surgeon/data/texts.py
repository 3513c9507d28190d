"""Texts as inputs of a network, by its tokenizer, and no longer than the network has positions for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgeon.data.network import Network
from surgeon.data.processors import load_tokenizer
from surgeon.errors import TrainingError

LONGEST = 512
"""Tokens of a text where neither the tokenizer nor the network says."""
ENDLESS = 10**6
"""What a tokenizer says of itself from here on means: no limit."""
BATCH = 1000


@dataclass
class Texts:
    """Encodes the texts of a column as a tokenizer makes them.

    Attributes:
        column: The column.
        tokenizer: A transformers tokenizer.
        max_length: How many tokens a text may have; the rest is cut off.
        arguments: What the network's forward takes, by name; None where it is not known.
    """

    column: str
    tokenizer: Any
    max_length: int
    arguments: frozenset[str] | None = None

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The tokens of a row."""
        return self.tensors(self.encode([self.value(row)]))[0]

    def value(self, row: Mapping[str, Any]) -> Any:
        """What of a row is encoded."""
        return row[self.column]

    def encode(self, values: Sequence[Any], *, cut: bool = True) -> Any:
        """What the tokenizer makes of several values, in lists."""
        texts = [value or "" for value in values]
        if not cut:
            return self.tokenizer(texts, truncation=False, verbose=False)
        return self.tokenizer(texts, truncation=True, max_length=self.max_length)

    def tensors(self, encoded: Any) -> list[dict[str, Tensor]]:
        """A sample for each of the values that were encoded."""
        names = [name for name in encoded if self.arguments is None or name in self.arguments] or list(encoded)
        count = len(encoded[names[0]])
        return [{name: torch.tensor(encoded[name][row], dtype=torch.long) for name in names} for row in range(count)]

    def whole(self, rows: Any) -> list[Any]:
        """What of every row is encoded."""
        return list(rows[self.column][:])

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.column]

    @property
    def names(self) -> list[str]:
        """What the columns of the batch are called."""
        return list(self.tensors(self.encode([self.example]))[0])

    @property
    def example(self) -> Any:
        """A value that can be encoded."""
        return "a"

    @property
    def padding(self) -> dict[str, int]:
        """What each column is filled up with."""
        fills = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {name: fills.get(name, 0) for name in self.names}

    def problem(self, value: Any) -> str | None:
        """What is wrong with one value; None where it can be encoded."""
        return not_a_text(self.column, value)

    def problems(self, rows: Any, vocabulary: int | None) -> dict[int, str]:
        """What is wrong with rows, by position: no text at all, or a token that the embedding does not know."""
        values = self.whole(rows)
        said = {place: text for place, value in enumerate(values) if (text := self.problem(value)) is not None}
        if vocabulary is None or len(self.tokenizer) <= vocabulary:
            return said
        for start in range(0, len(values), BATCH):
            part = [value for place, value in enumerate(values[start : start + BATCH], start) if place not in said]
            places = [place for place in range(start, min(start + BATCH, len(values))) if place not in said]
            for place, row in zip(places, self.encode(part)["input_ids"] if part else (), strict=True):
                if max(row, default=0) >= vocabulary:
                    token = self.tokenizer.convert_ids_to_tokens(max(row))
                    said[place] = f"the token {token!r} has the number {max(row)}, and the embedding {vocabulary} rows"
        return said

    def notes(self, rows: Any, where: str) -> list[str]:
        """How many texts are empty, and how many are cut."""
        values = self.whole(rows)
        empty = sum(not value for value in values)
        # a token has at least one byte, so that only these can be too long
        long = [value for value in values if _bytes(value) > self.max_length - self.added]
        cut = 0
        for start in range(0, len(long), BATCH):
            cut += sum(
                len(row) > self.max_length for row in self.encode(long[start : start + BATCH], cut=False)["input_ids"]
            )
        lines = [f"{where}: {empty} of {len(values)} texts are empty"] if empty else []
        if cut:
            lines.append(f"{where}: {cut} of {len(values)} texts are cut after {self.max_length} tokens")
        return lines

    added = 2
    """How many tokens a tokenizer may add to a value."""


def open_texts(column: str, tokenizer: str | None, max_length: int | None, network: Network) -> Texts:
    """Load a tokenizer, and find out how long texts may be: for it, for the network, and by the user's word.

    Raises:
        TrainingError: There is none, it cannot be loaded, or ``max_length`` is more than the network has positions for.
    """
    files = network.preprocessing.tokenizer
    if tokenizer is None and not files:
        raise TrainingError(
            f"{column!r} holds texts, and no tokenizer lies beside the weights",
            where="train.data",
            hint="name one: tokenizer: FOLDER",
        )
    made = load_tokenizer(files) if tokenizer is None else _named(tokenizer)
    if made.pad_token_id is None:
        made.pad_token = made.eos_token
    if max_length is not None and network.positions is not None and max_length > network.positions:
        raise TrainingError(
            f"max_length is {max_length}, and the network has positions for {network.positions} tokens",
            where="train.data.max_length",
            hint=f"leave it out, or max_length: {network.positions}",
        )
    own = made.model_max_length if made.model_max_length < ENDLESS else None
    wanted = max_length or network.preprocessing.texts.get("max_length") or own
    limits = [limit for limit in (wanted, network.positions) if limit is not None]
    return Texts(column, made, min(limits, default=LONGEST), network.preprocessing.arguments)


def _named(tokenizer: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # by what is wrong with the files: OSError, ValueError, KeyError, the Rust library's own
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the tokenizer {tokenizer!r} cannot be loaded: {said}", where="train.data") from error


def not_a_text(column: str, value: Any) -> str | None:
    """What to say of a value that is no text; None where it is one, or missing."""
    if value is None or isinstance(value, str):
        return None
    kind = "a list" if isinstance(value, list) else f"{value!r}, a {type(value).__name__}"
    return f"{column!r} holds {kind}, and the tokenizer takes one text"


def _bytes(value: Any) -> int:
    """How many bytes the texts in a value have."""
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0
