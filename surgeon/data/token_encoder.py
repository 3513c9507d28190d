"""Make tokens of the texts of a corpus: whole texts, completions of prompts, or full blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from surgeon.data.corpus_texts import WHERE, CorpusSource, Text
from surgeon.data.labels import IGNORED
from surgeon.data.network import MASKED, Network
from surgeon.data.texts import Texts, open_texts
from surgeon.data.token_rows import OFFSETS, SPECIAL
from surgeon.errors import TrainingError


@dataclass
class Encoder:
    """Makes tokens of texts, as rows of :class:`TokenRows`.

    Attributes:
        texts: The tokenizer with the greatest length.
        loss: Which tokens are predicted.
        packed: Whether texts are cut into full blocks.
        arguments: What the network takes by name; None where that is not known.
        vocabulary: How many tokens its embedding knows; None where that is not known.
        whole_words: Whether words are masked as a whole.
        skip: Leave out a text that cannot be used, instead of an error.
        where: What the source is called.
        notes: What was left out.
    """

    texts: Texts
    loss: str
    packed: bool
    arguments: frozenset[str] | None
    vocabulary: int | None
    whole_words: bool
    skip: bool
    where: str
    notes: list[str] = field(default_factory=list)
    _cut: int = field(default=0, init=False)

    @classmethod
    def of(cls, source: CorpusSource, network: Network, loss: str, notes: list[str]) -> Encoder:
        """The encoder of a source, for a network.

        Raises:
            TrainingError: The tokenizer is not there, or lacks a token that is needed.
        """
        texts = open_texts(source.text, source.tokenizer, source.max_length, network)
        packed = (source.packing or ("none" if source.prompt else "blocks")) == "blocks"
        tokenizer = texts.tokenizer
        if loss == MASKED and source.prompt:
            raise TrainingError(
                "prompt and completion are for networks that predict the next token, and this one predicts masked ones",
                where=f"{WHERE}.prompt",
                hint="name the column of whole texts: text: COLUMN",
            )
        if loss == MASKED and tokenizer.mask_token is None:
            raise TrainingError(
                "the tokenizer has no mask token, so that no token can be masked",
                where=f"{WHERE}.tokenizer",
                hint="a network that predicts the next token has the loss next_token",
            )
        if loss != MASKED and packed and tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
            raise TrainingError(
                "the tokenizer has no token that ends a text, so that packed texts would run into one another",
                where=f"{WHERE}.packing",
                hint="packing: none",
            )
        if source.whole_words and loss == MASKED and not tokenizer.is_fast:
            raise TrainingError(
                f"{type(tokenizer).__name__} does not say where words begin", where=f"{WHERE}.whole_words"
            )
        return cls(
            texts,
            loss,
            packed,
            network.preprocessing.arguments,
            network.vocabulary,
            source.whole_words and loss == MASKED,
            source.on_error == "skip",
            source.path,
            notes,
        )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.texts.tokenizer

    @property
    def max_length(self) -> int:
        """Tokens of a block, or of a text at the most."""
        return self.texts.max_length

    def rows(self, texts: Sequence[Text], part: str) -> tuple[list[dict[str, Tensor]], list[str]]:
        """The rows of one part, and what they are called.

        Raises:
            TrainingError: A text cannot be used, or there are not enough tokens for a block.
        """
        self._cut = 0
        made, names = [], []
        for text in texts:
            try:
                columns = self._tokens(text)
            except TrainingError as error:
                if not self.skip:
                    error.message, error.where = f"{self.where}, {text.name}: {error.message}", WHERE
                    raise
                self.notes.append(f"{self.where}: left out {text.name}: {error.message}")
                continue
            made.append(columns)
            names.append(text.name)
        if self.packed:
            made = self._blocks(made, part)
            names = [f"block {number}" for number in range(len(made))]
        else:
            cut = self._cut + sum(len(columns["input_ids"]) > self.max_length for columns in made)
            if cut:
                kept = f"cut after {self.max_length} tokens"
                self.notes.append(f"{self.where}: {cut} of {len(made)} {part} texts are {kept}")
            made = [{name: column[: self.max_length] for name, column in columns.items()} for columns in made]
        if not made:
            raise TrainingError(f"{self.where} has no text for {part}", where=WHERE)
        return [{name: torch.tensor(column) for name, column in columns.items()} for columns in made], names

    def _tokens(self, text: Text) -> dict[str, list[Any]]:
        asked: dict[str, Any] = {"verbose": False}
        if self.loss == MASKED:
            asked |= {"return_special_tokens_mask": True, "return_offsets_mapping": self.whole_words}
        if text.prompt is not None:
            columns = self._completed(text.prompt, text.whole)
        else:
            encoded = self.tokenizer(text.whole, **asked)
            if self.loss == MASKED and not self.packed and len(encoded["input_ids"]) > self.max_length:
                self._cut += 1  # here, so that the token that ends a text stays
                encoded = self.tokenizer(text.whole, truncation=True, max_length=self.max_length, **asked)
            columns = {name: list(value) for name, value in encoded.items()}
            if self.loss != MASKED:
                self._end(columns)
                columns["labels"] = list(columns["input_ids"])
        if self.arguments is not None:
            needed = self.arguments | {"labels", SPECIAL, OFFSETS}
            columns = {name: value for name, value in columns.items() if name in needed}
        highest = max(columns["input_ids"])
        if self.vocabulary is not None and highest >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise TrainingError(
                f"the token {token!r} has the number {highest}, and the embedding {self.vocabulary} rows",
                hint="take the tokenizer that the network was trained with",
            )
        return columns

    def _completed(self, prompt: str, completion: str) -> dict[str, list[Any]]:
        """A prompt as generation is given it, and what follows: the rest of the tokens of both together, where these
        begin with the prompt's; else the completion's own."""
        before = self.tokenizer(prompt, verbose=False)["input_ids"]
        ends = {self.tokenizer.eos_token_id, self.tokenizer.sep_token_id} - {None}
        while before and before[-1] in ends and not prompt.endswith(self.tokenizer.convert_ids_to_tokens(before[-1])):
            before = before[:-1]  # generation goes on from a prompt that is not ended
        both = self.tokenizer(prompt + completion, verbose=False)["input_ids"]
        if both[: len(before)] != before:
            both = before + self.tokenizer(completion, add_special_tokens=False, verbose=False)["input_ids"]
        columns: dict[str, list[Any]] = {"input_ids": both, "attention_mask": [1] * len(both)}
        self._end(columns)
        if len(before) >= self.max_length:
            raise TrainingError(
                f"its prompt has {len(before)} tokens, so that nothing of the completion is among {self.max_length}",
                hint="raise max_length, or leave such rows out: on_error: skip",
            )
        columns["labels"] = [IGNORED] * len(before) + columns["input_ids"][len(before) :]
        return columns

    def _end(self, columns: dict[str, list[Any]]) -> None:
        """Put the token that ends a text behind it, where the tokenizer does not."""
        tokenizer = self.tokenizer
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if end is None or columns["input_ids"][-1:] == [end]:
            return
        for name, column in columns.items():
            column.append(end if name == "input_ids" else 1 if name == "attention_mask" else (column or [0])[-1])

    def _blocks(self, made: Sequence[dict[str, list[Any]]], part: str) -> list[dict[str, list[Any]]]:
        names = list(made[0]) if made else []
        stream = {name: [value for columns in made for value in columns[name]] for name in names}
        size, length = self.max_length, len(stream.get("input_ids", ()))
        if length < size:
            raise TrainingError(
                f"{self.where} has {length} tokens for {part}, and a block has {size}",
                where=f"{WHERE}.max_length",
                hint=f"max_length: {max(2, length // 8)}, or packing: none",
            )
        if length % size:
            self.notes.append(
                f"{self.where}: the last {length % size} of {length} {part} tokens fill no block of {size}"
            )
        starts = range(0, length - size + 1, size)
        return [{name: column[start : start + size] for name, column in stream.items()} for start in starts]
