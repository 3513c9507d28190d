"""Encode texts as the checkpoint's own tokenizer does, or as one that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgeon.data.processors import load_tokenizer
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing

LONGEST = 512
"""Tokens of a text where the tokenizer does not say."""
ENDLESS = 10**6
"""What a tokenizer says of itself from here on means: no limit."""


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


def open_texts(column: str, tokenizer: str | None, max_length: int | None, stated: Preprocessing = UNKNOWN) -> Texts:
    """Load a tokenizer, and find out how long texts may be.

    Args:
        column: The column of texts.
        tokenizer: A folder or a name on the hub; the checkpoint's own if left out.
        max_length: How many tokens a text may have; as training had it, or as the tokenizer says, if left out.
        stated: What the checkpoint says of it.

    Raises:
        TrainingError: It cannot be loaded, or there is none.
    """
    if tokenizer is None and not stated.tokenizer:
        raise TrainingError(
            f"{column!r} holds texts, and no tokenizer lies beside the weights",
            where="train.data",
            hint="name one: tokenizer: FOLDER",
        )
    made = load_tokenizer(stated.tokenizer) if tokenizer is None else _named(tokenizer)
    if made.pad_token_id is None:
        made.pad_token = made.eos_token
    if max_length is None:
        own = made.model_max_length
        max_length = stated.texts.get("max_length") or (own if own < ENDLESS else LONGEST)
    return Texts(column, made, max_length)


def _named(tokenizer: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # by what is wrong with the files: OSError, ValueError, KeyError, the Rust library's own
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the tokenizer {tokenizer!r} cannot be loaded: {said}", where="train.data") from error
