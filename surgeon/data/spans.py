"""Corrupt spans of texts, as T5 is trained: a network reads the text without them, and writes what is missing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from surgeon.data.network import Network
from surgeon.data.row_splits import SPLIT_SEED
from surgeon.errors import TrainingError

SENTINEL = re.compile(r"(▁?)<extra_id_(\d+)>")
SPAN = 3.0
"""The mean number of tokens in a span (Raffel et al. 2020, section 3.3.4)."""
BYTES = "ByT5Tokenizer"
BYTE_SENTINELS = range(258, 247, -1)
"""The sentinels of ByT5, which was trained with ids that count down from that of the last byte. These stand for the
bytes 0xFF to 0xF5, which are in no text of UTF-8; its tokenizer's own ``<extra_id_0>``, … were in no training."""
BYTE_SPAN = 20.0
"""The mean number of bytes in a span of ByT5 (Xue et al. 2022, section 3.1)."""
WHERE = "train.data.tokenizer"


class SpanCorruption:
    """Replace spans of tokens by sentinels; the labels are each sentinel with the tokens that it stands for.

    Raffel et al. 2020, section 3.1.4: "Thank you <X> me to your party <Y> week", and the target is "<X> for inviting
    <Y> last <Z>". Both end with the end-of-text token. As in :class:`Masking`, the generator depends only on the seed,
    the epoch and the sample.

    Args:
        tokenizer: The tokenizer; it must have sentinels and an end-of-text token.
        share: The share of tokens to leave out.
        seed: The recipe's seed.

    Raises:
        TrainingError: The tokenizer has no such tokens.
    """

    varies = True

    def __init__(self, tokenizer: Any, share: float, seed: int) -> None:
        of_bytes = any(cls.__name__ == BYTES for cls in type(tokenizer).__mro__)
        self.sentinels = list(BYTE_SENTINELS) if of_bytes else sentinels_of(tokenizer.get_vocab())
        self.span = BYTE_SPAN if of_bytes else SPAN
        if len(self.sentinels) < 2:
            raise TrainingError(
                "the network writes one sequence by reading another, which learns from a corpus by span corruption, "
                "and the tokenizer has no sentinels <extra_id_0>, <extra_id_1>, … to stand for spans",
                where=WHERE,
                hint="use a network of the T5 family with its own tokenizer, or one that predicts tokens",
            )
        if tokenizer.eos_token_id is None or tokenizer.padding_side != "right":
            lacks = "has no end-of-text token" if tokenizer.eos_token_id is None else "pads on the left"
            raise TrainingError(f"the tokenizer {lacks}, and span corruption needs one that T5 could use", where=WHERE)
        self.end = tokenizer.eos_token_id
        self.share = share
        self.seed = seed

    def __call__(self, row: Mapping[str, Tensor], number: int, epoch: int | None) -> dict[str, Tensor]:
        """Corrupt a row; with ``epoch`` None, spans are the same in every run."""
        key = f"{SPLIT_SEED} {number}" if epoch is None else f"{self.seed} {epoch} {number}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
        tokens = row["input_ids"].tolist()
        if tokens[-1] == self.end:
            tokens.pop()
        read, written = self._corrupt(tokens, torch.Generator().manual_seed(seed))
        ids = torch.tensor([*read, self.end])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([*written, self.end])}

    def _corrupt(self, tokens: list[int], generator: torch.Generator) -> tuple[list[int], list[int]]:
        """Return what is read and what is written; kept and left-out spans alternate, all ways of that alike."""
        size = len(tokens)
        noise = min(max(round(size * self.share), 1), max(size - 1, 1))
        spans = min(max(round(noise / self.span), 1), max(size - noise, 1), len(self.sentinels) - 1)
        left_out = _segments(noise, spans, generator)
        kept_lengths = _segments(size - noise + 2, spans + 1, generator)
        kept_lengths[0] -= 1  # a text may begin and end with a span
        read: list[int] = []
        written: list[int] = []
        place = 0
        for sentinel, before, length in zip(self.sentinels, kept_lengths, left_out, strict=False):
            read += [*tokens[place : place + before], sentinel]
            written += [sentinel, *tokens[place + before : place + before + length]]
            place += before + length
        return [*read, *tokens[place:]], [*written, self.sentinels[spans]]


def sentinels_of(vocabulary: Mapping[str, int]) -> list[int]:
    """Return the ids of the sentinels in a vocabulary, in their order.

    mT5's are pieces ``▁<extra_id_0>``, …; what transformers adds to these without the mark was in no training.
    """
    numbered: dict[str, dict[int, int]] = {"▁": {}, "": {}}
    for token, id_ in vocabulary.items():
        if match := SENTINEL.fullmatch(token):
            numbered[match[1]][int(match[2])] = id_
    chosen = numbered["▁"] or numbered[""]
    return [chosen[number] for number in sorted(chosen)]


def _segments(size: int, count: int, generator: torch.Generator) -> list[int]:
    """Cut ``size`` into ``count`` lengths of at least one, all ways alike."""
    if count == 1:
        return [size]
    cuts = sorted((torch.randperm(size - 1, generator=generator)[: count - 1] + 1).tolist())
    return [end - start for start, end in zip([0, *cuts], [*cuts, size], strict=True)]


def spans_of(source: Any, network: Network, tokenizer: Any, seed: int) -> SpanCorruption:
    """Make the span corruption of a :class:`surgeon.data.sources.Corpus`.

    Raises:
        TrainingError: The tokenizer or a setting of the source does not go with it.
    """
    if source.whole_words:
        raise TrainingError(
            "whole_words is for networks that predict masked tokens, and this one writes spans of tokens",
            where="train.data.whole_words",
            hint="leave it out",
        )
    spans = SpanCorruption(tokenizer, source.masked, seed)
    if network.vocabulary is not None and max(spans.sentinels) >= network.vocabulary:
        raise TrainingError(
            f"the sentinels have ids up to {max(spans.sentinels)}, but the embedding has {network.vocabulary} rows",
            where=WHERE,
            hint="use the tokenizer of the network's training",
        )
    return spans


def first_token(network: Network, tokenizer: Any) -> int:
    """Return the token that a decoder's text begins with: the config's; else that for padding, as for T5."""
    return network.decoder_start if network.decoder_start is not None else int(tokenizer.pad_token_id)
