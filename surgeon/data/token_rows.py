"""Present tokenized texts as samples for a language model: masked in every epoch, padded on the tokenizer's side."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from surgeon.data.labels import IGNORED
from surgeon.data.network import DECODED
from surgeon.data.row_splits import SPLIT_SEED

SPECIAL, OFFSETS = "special_tokens_mask", "offset_mapping"
"""Further outputs of a tokenizer, used for masking only."""


class Masking:
    """Mask tokens with transformers' collator, with a separate generator per sample.

    The generator depends only on the seed, the epoch and the sample, so an interrupted run continues with the same
    masks, in any order and process.

    Args:
        tokenizer: The tokenizer; it must have a mask token.
        share: The share of tokens to mask.
        whole_words: Whether to mask all tokens of a word at once, always with the mask token.
        seed: The recipe's seed.
    """

    varies = True

    def __init__(self, tokenizer: Any, share: float, whole_words: bool, seed: int) -> None:
        from transformers import DataCollatorForLanguageModeling

        # words are replaced by the mask token only; transformers warns if it has to set that itself
        words = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0} if whole_words else {}
        self.collator = DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=share, whole_word_mask=whole_words, **words
        )
        self.seed = seed

    def __call__(self, row: Mapping[str, Tensor], number: int, epoch: int | None) -> dict[str, Tensor]:
        """Mask a row; with ``epoch`` None, masks are the same in every run."""
        key = f"{SPLIT_SEED} {number}" if epoch is None else f"{self.seed} {epoch} {number}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
        self.collator.generator = torch.Generator().manual_seed(seed)
        offsets = row.get(OFFSETS)
        tokens, labels = self.collator.torch_mask_tokens(
            row["input_ids"].clone()[None],
            special_tokens_mask=row[SPECIAL][None],
            offset_mapping=None if offsets is None else offsets[None],
        )
        columns = {name: value for name, value in row.items() if name not in (SPECIAL, OFFSETS)}
        return {**columns, "input_ids": tokens[0], "labels": labels[0]}


class Varies(Protocol):
    """Make another sample of the same tokens in every epoch."""

    def __call__(self, row: Mapping[str, Tensor], number: int, epoch: int | None) -> dict[str, Tensor]:
        """Return a sample; with ``epoch`` None, the same in every run."""
        ...


class TokenRows(Dataset[dict[str, Tensor]]):
    """Hold texts, or blocks of them, as tokens in memory.

    Args:
        rows: ``input_ids``, ``attention_mask`` and other outputs of the tokenizer; ``labels`` unless tokens are masked.
        ids: The name of each row.
        masking: Masks tokens, or leaves out spans; None for a network that predicts the next one.
        varied: Whether masks differ between epochs.
    """

    def __init__(
        self, rows: Sequence[dict[str, Tensor]], ids: Sequence[str], masking: Varies | None, *, varied: bool
    ) -> None:
        self.rows = list(rows)
        self.ids = list(ids)
        self.masking = masking
        self.varied = varied
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[index]
        if self.masking is None:
            return dict(row)
        return self.masking(row, int(index), self.epoch if self.varied else None)

    @property
    def encoders(self) -> list[Varies]:
        """The objects that vary samples."""
        return [self.masking] if self.masking is not None and self.varied else []

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines masks."""
        self.epoch = epoch

    def row_ids(self, positions: Sequence[int]) -> list[str]:
        """Return the names of rows, for the record of what is held out."""
        return [self.ids[int(position)] for position in positions]

    def unvaried(self) -> TokenRows:
        """Return the same rows with constant masks."""
        plain = copy.copy(self)
        plain.varied = False
        return plain


@dataclass
class TokenCollate:
    """Make a batch with transformers' collator: pad inputs with ``tokenizer.pad`` and labels with -100.

    Attributes:
        tokenizer: The tokenizer.
        positions: Whether to number positions from the first token of each text, as generation does; for padding on the
            left, which would shift positions.
        start: The token that a decoder's text begins with, for a network that writes its labels: the decoder reads at
            each place the label before.
    """

    tokenizer: Any
    positions: bool = False
    start: int | None = None
    collator: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from transformers import DataCollatorForSeq2Seq

        self.collator = DataCollatorForSeq2Seq(self.tokenizer, label_pad_token_id=IGNORED)

    def __call__(self, samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return ``samples`` as a batch."""
        batch = dict(self.collator([{name: value.tolist() for name, value in sample.items()} for sample in samples]))
        if self.positions:
            batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        if self.start is not None:
            labels = batch["labels"]
            read = labels.masked_fill(labels == IGNORED, self.tokenizer.pad_token_id)
            batch[DECODED] = torch.cat([torch.full_like(read[:, :1], self.start), read[:, :-1]], 1)
        return batch
