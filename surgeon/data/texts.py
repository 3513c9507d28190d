"""Encode texts as inputs of a network with its tokenizer, up to the network's length limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgeon.data.network import Network
from surgeon.data.processors import load_tokenizer, padding_token
from surgeon.errors import TrainingError

LONGEST = 512
"""The default limit in tokens, if neither tokenizer nor network has one."""
ENDLESS = 10**6
"""Limits of tokenizers from this value on mean no limit."""
BATCH = 1000


@dataclass
class Texts:
    """Encode the texts of a column with a tokenizer.

    Attributes:
        column: The column.
        tokenizer: A transformers tokenizer.
        max_length: The most tokens of a text, which is cut there.
        arguments: The names of the network's arguments; None if unknown.
    """

    column: str
    tokenizer: Any
    max_length: int
    arguments: frozenset[str] | None = None

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode a row."""
        return self.tensors(self.encode([self.value(row)]))[0]

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the part of a row to encode."""
        return row[self.column]

    def encode(self, values: Sequence[Any], *, cut: bool = True) -> Any:
        """Return the tokenizer's output for several values, as lists."""
        texts = [value or "" for value in values]
        if not cut:
            return self.tokenizer(texts, truncation=False, verbose=False)
        return self.tokenizer(texts, truncation=True, max_length=self.max_length)

    def tensors(self, encoded: Any) -> list[dict[str, Tensor]]:
        """Return one sample per encoded value."""
        names = [name for name in encoded if self.arguments is None or name in self.arguments] or list(encoded)
        count = len(encoded[names[0]])
        return [{name: torch.tensor(encoded[name][row], dtype=torch.long) for name in names} for row in range(count)]

    def whole(self, rows: Any) -> list[Any]:
        """Return the part of every row to encode."""
        return list(rows[self.column][:])

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [self.column]

    @property
    def names(self) -> list[str]:
        """The columns of the batch."""
        return list(self.tensors(self.encode([self.example]))[0])

    @property
    def example(self) -> Any:
        """A value that can be encoded."""
        return "a"

    @property
    def padding(self) -> dict[str, int]:
        """The padding value of each column."""
        fills = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {name: fills.get(name, 0) for name in self.names}

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value; None if it can be encoded."""
        return not_a_text(self.column, value)

    def problems(self, rows: Any, vocabulary: int | None) -> dict[int, str]:
        """Return what is wrong with rows, by position: a value that is not a text, or a token beyond the embedding."""
        values = self.whole(rows)
        problems = {place: text for place, value in enumerate(values) if (text := self.problem(value)) is not None}
        if any(value in ("", None) for value in values) and not self.tokenizer("")["input_ids"]:
            empty = "the text is empty, and the tokenizer adds no token to it"
            problems |= {place: empty for place, value in enumerate(values) if value in ("", None)}
        if vocabulary is None or len(self.tokenizer) <= vocabulary:
            return problems
        for start in range(0, len(values), BATCH):
            part = [value for place, value in enumerate(values[start : start + BATCH], start) if place not in problems]
            places = [place for place in range(start, min(start + BATCH, len(values))) if place not in problems]
            for place, row in zip(places, self.encode(part)["input_ids"] if part else (), strict=True):
                if max(row, default=0) >= vocabulary:
                    token = self.tokenizer.convert_ids_to_tokens(max(row))
                    problems[place] = f"the token {token!r} has id {max(row)}, but the embedding has {vocabulary} rows"
        return problems

    def notes(self, rows: Any, where: str, *, trains: bool) -> list[str]:
        """Return notes on how many texts are empty, and how many are cut.

        Raises:
            TrainingError: All are empty, and they are training texts.
        """
        values = self.whole(rows)
        empty = sum(map(_is_empty, values))
        if trains and all(_is_empty(value, every=True) for value in values):
            raise TrainingError(f"{where}: every text in {' and '.join(map(repr, self.columns))} is empty")
        # a token has at least one byte, so only these can be too long
        long = [value for value in values if _bytes(value) > self.max_length - self.added]
        cut = 0
        for start in range(0, len(long), BATCH):
            cut += sum(
                len(row) > self.max_length for row in self.encode(long[start : start + BATCH], cut=False)["input_ids"]
            )
        problem = "pairs lack a text" if len(self.columns) > 1 else "texts are empty"
        lines = [f"{where}: {empty} of {len(values)} {problem}"] if empty else []
        if cut:
            lines.append(f"{where}: {cut} of {len(values)} texts are cut after {self.max_length} tokens")
        return lines

    added = 2
    """The most special tokens that a tokenizer adds to a value."""


def open_texts(column: str, tokenizer: str | None, max_length: int | None, network: Network) -> Texts:
    """Load a tokenizer, and determine the length limit of texts: by tokenizer, network and user.

    Raises:
        TrainingError: There is no tokenizer, it cannot be loaded, or ``max_length`` exceeds the network's positions.
    """
    files = network.preprocessing.tokenizer
    if tokenizer is None and not files:
        raise TrainingError(
            f"{column!r} has texts, but there is no tokenizer beside the weights",
            where="train.data",
            hint="give one: tokenizer: FOLDER",
        )
    loaded_tokenizer = load_tokenizer(files) if tokenizer is None else _named(tokenizer)
    pad = padding_token(loaded_tokenizer)
    if pad is not None and network.vocabulary is not None and pad >= network.vocabulary:
        raise TrainingError(
            f"the tokenizer pads with {loaded_tokenizer.pad_token!r}, id {pad}, but the embedding has "
            f"{network.vocabulary} rows",
            where="train.data.tokenizer",
            hint="set its pad_token to one of those, such as its eos_token, and give its folder: tokenizer: FOLDER",
        )
    if max_length is not None and network.positions is not None and max_length > network.positions:
        raise TrainingError(
            f"max_length is {max_length}, but the network has positions for {network.positions} tokens only",
            where="train.data.max_length",
            hint=f"leave it out, or use max_length: {network.positions}",
        )
    limit = max_length or network.preprocessing.texts.get("max_length")
    own_limit = loaded_tokenizer.model_max_length if loaded_tokenizer.model_max_length < ENDLESS else None
    by_default = min(own_limit or network.positions or LONGEST, network.context or ENDLESS)
    limits = [length for length in (limit or by_default, network.positions) if length is not None]
    return Texts(column, loaded_tokenizer, min(limits), network.preprocessing.arguments)


def _named(tokenizer: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, KeyError, exceptions of the Rust library, …
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the tokenizer {tokenizer!r} cannot be loaded: {reason}", where="train.data") from error


def not_a_text(column: str, value: Any) -> str | None:
    """Return what is wrong with a value that is not a text; None for a text or a missing value."""
    if value is None or isinstance(value, str):
        return None
    kind = "a list" if isinstance(value, list) else f"{value!r}, a {type(value).__name__}"
    return f"{column!r} contains {kind}, but the tokenizer takes one text"


def _is_empty(value: Any, *, every: bool = False) -> bool:
    """Return whether a text is empty, or one text of a pair (with ``every``, both), or a list of words."""
    if isinstance(value, tuple):
        return (all if every else any)(map(_is_empty, value))
    return not (value.strip() if isinstance(value, str) else value)


def _bytes(value: Any) -> int:
    """Return the number of bytes of the texts in a value."""
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0
