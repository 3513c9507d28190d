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
    """

    column: str
    tokenizer: Any
    max_length: int

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The tokens of a row."""
        encoded = self.tokenizer(row[self.column] or "", truncation=True, max_length=self.max_length)
        return {name: torch.tensor(value) for name, value in encoded.items()}

    @property
    def names(self) -> list[str]:
        """What the columns of the batch are called."""
        return list(self({self.column: "a"}, 0, False))

    @property
    def padding(self) -> dict[str, int]:
        """What each column is filled up with."""
        fills = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {name: fills.get(name, 0) for name in self.names}

    def problems(self, texts: Sequence[Any], vocabulary: int | None) -> dict[int, str]:
        """What is wrong with texts, by position: no text at all, or a token that the embedding does not know."""
        said = {
            place: f"{self.column!r} holds {_kind(text)}, and the tokenizer takes one text"
            for place, text in enumerate(texts)
            if not (text is None or isinstance(text, str))
        }
        if vocabulary is None or len(self.tokenizer) <= vocabulary:
            return said
        for start in range(0, len(texts), BATCH):
            part = [text if isinstance(text, str) else "" for text in texts[start : start + BATCH]]
            ids = self.tokenizer(part, truncation=True, max_length=self.max_length)["input_ids"]
            for place, row in enumerate(ids, start):
                if max(row, default=0) >= vocabulary:
                    token = self.tokenizer.convert_ids_to_tokens(max(row))
                    said.setdefault(
                        place, f"the token {token!r} has the number {max(row)}, and the embedding {vocabulary} rows"
                    )
        return said

    def notes(self, texts: Sequence[Any], where: str) -> list[str]:
        """How many texts are empty, and how many are cut."""
        empty = sum(not text for text in texts)
        # a token has at least one byte, so that only these can be too long
        long = [text for text in texts if isinstance(text, str) and len(text.encode()) > self.max_length - 2]
        cut = 0
        for start in range(0, len(long), BATCH):
            ids = self.tokenizer(long[start : start + BATCH], truncation=False, verbose=False)["input_ids"]
            cut += sum(len(row) > self.max_length for row in ids)
        lines = [f"{where}: {empty} of {len(texts)} texts are empty"] if empty else []
        if cut:
            lines.append(f"{where}: {cut} of {len(texts)} texts are cut after {self.max_length} tokens")
        return lines


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
    return Texts(column, made, min(limits, default=LONGEST))


def _named(tokenizer: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # by what is wrong with the files: OSError, ValueError, KeyError, the Rust library's own
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the tokenizer {tokenizer!r} cannot be loaded: {said}", where="train.data") from error


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}, a {type(value).__name__}"
