"""Tokenize the texts of a corpus: whole texts, completions of prompts, or full blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from surgeon.data.conversations import check_template, learnt_turns
from surgeon.data.corpus_texts import WHERE, CorpusSource, Text
from surgeon.data.labels import IGNORED
from surgeon.data.network import MASKED, SEQUENCES, Network
from surgeon.data.text_pairs import read_and_written
from surgeon.data.texts import Texts, open_texts
from surgeon.data.token_rows import OFFSETS, SPECIAL
from surgeon.errors import TrainingError


@dataclass
class Encoder:
    """Tokenize texts into rows of :class:`TokenRows`.

    Attributes:
        texts: The tokenizer with the length limit.
        loss: Which tokens are predicted.
        packed: Whether texts are cut into full blocks.
        pairs: Whether the network reads prompts and writes their completions, rather than continue them.
        arguments: The names of the network's arguments; None if unknown.
        vocabulary: The number of tokens in its embedding; None if unknown.
        whole_words: Whether words are masked as a whole.
        skip: Whether to leave out a text that cannot be used, instead of raising.
        where: The name of the source in messages.
        notes: Remarks on omissions.
    """

    texts: Texts
    loss: str
    packed: bool
    pairs: bool
    arguments: frozenset[str] | None
    vocabulary: int | None
    whole_words: bool
    skip: bool
    where: str
    notes: list[str] = field(default_factory=list)
    _cut: int = field(default=0, init=False)

    @classmethod
    def of(cls, source: CorpusSource, network: Network, loss: str, notes: list[str]) -> Encoder:
        """Make the encoder of a source for a network.

        Raises:
            TrainingError: The tokenizer is missing, or lacks a required token.
        """
        texts = open_texts(source.text, source.tokenizer, source.max_length, network)
        packed = (source.packing or ("none" if source.prompt or source.messages else "blocks")) == "blocks"
        tokenizer = texts.tokenizer
        if loss == MASKED and network.language != SEQUENCES and (source.prompt or source.messages):
            form, where = ("messages are", "messages") if source.messages else ("prompt and completion are", "prompt")
            raise TrainingError(
                f"{form} for networks that predict the next token, and this one predicts masked ones",
                where=f"{WHERE}.{where}",
                hint="give the column of whole texts: text: COLUMN",
            )
        if source.messages is not None:
            check_template(tokenizer)
        if loss == MASKED and network.language != SEQUENCES and tokenizer.mask_token is None:
            raise TrainingError(
                "the tokenizer has no mask token, so no token can be masked",
                where=f"{WHERE}.tokenizer",
                hint="use a tokenizer with a mask token; for a network that predicts the next token, loss: next_token",
            )
        if not packed and tokenizer.pad_token_id is None:
            raise TrainingError(
                "the tokenizer names no token that pads, nor one that ends a text",
                where=f"{WHERE}.tokenizer",
                hint="set its pad_token, save it with save_pretrained, and give that folder: tokenizer: FOLDER",
            )
        drawn = loss == MASKED and network.language != SEQUENCES and not source.whole_words
        if drawn and network.vocabulary is not None and len(tokenizer) > network.vocabulary:
            raise TrainingError(
                f"some masked tokens become another one of the tokenizer's {len(tokenizer)}, but the embedding has "
                f"{network.vocabulary} rows",
                where=f"{WHERE}.tokenizer",
                hint="use the tokenizer of the network's training, or whole_words: true",
            )
        if loss != MASKED and packed and tokenizer.eos_token_id is None and tokenizer.sep_token_id is None:
            raise TrainingError(
                "the tokenizer has no end-of-text token to separate packed texts",
                where=f"{WHERE}.packing",
                hint="set its eos_token, save it with save_pretrained, and give that folder: tokenizer: FOLDER",
            )
        if source.whole_words and loss == MASKED and not tokenizer.is_fast:
            raise TrainingError(
                f"{type(tokenizer).__name__} does not say where words begin", where=f"{WHERE}.whole_words"
            )
        return cls(
            texts,
            loss,
            packed,
            network.language == SEQUENCES and source.prompt is not None,
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
        """The tokens of a block, or the most tokens of a text."""
        return self.texts.max_length

    def rows(self, texts: Sequence[Text], part: str) -> tuple[list[dict[str, Tensor]], list[str]]:
        """Return the rows of one part, and their names.

        Raises:
            TrainingError: A text cannot be used, or there are too few tokens for a block.
        """
        self._cut = 0
        encoded, names = [], []
        for text in texts:
            try:
                columns = self._tokens(text)
            except TrainingError as error:
                if not self.skip:
                    error.message, error.where = f"{self.where}, {text.name}: {error.message}", WHERE
                    raise
                self.notes.append(f"{self.where}: left out {text.name}: {error.message}")
                continue
            encoded.append(columns)
            names.append(text.name)
        if self.packed:
            encoded = self._blocks(encoded, part)
            names = [f"block {number}" for number in range(len(encoded))]
        else:
            cut = self._cut + sum(len(columns["input_ids"]) > self.max_length for columns in encoded)
            if cut:
                limit = f"cut after {self.max_length} tokens"
                self.notes.append(f"{self.where}: {cut} of {len(encoded)} {part} texts are {limit}")
            encoded = [{name: column[: self.max_length] for name, column in columns.items()} for columns in encoded]
        if not encoded:
            raise TrainingError(f"{self.where} has no text for {part}", where=WHERE)
        return [{name: torch.tensor(column) for name, column in columns.items()} for columns in encoded], names

    def _tokens(self, text: Text) -> dict[str, list[Any]]:
        options: dict[str, Any] = {"verbose": False}
        if self.loss == MASKED:
            options |= {"return_special_tokens_mask": True, "return_offsets_mapping": self.whole_words}
        if text.messages:
            columns = learnt_turns(self.tokenizer, text.messages, self.max_length)
        elif text.prompt is not None and self.pairs:
            columns, cut = read_and_written(self.tokenizer, text.prompt, text.whole, self.max_length)
            self._cut += cut
        elif text.prompt is not None:
            columns = self._completed(text.prompt, text.whole)
        else:
            encoded = self.tokenizer(text.whole, **options)
            if self.loss == MASKED and not self.packed and len(encoded["input_ids"]) > self.max_length:
                self._cut += 1  # truncated here to keep the end-of-text token
                encoded = self.tokenizer(text.whole, truncation=True, max_length=self.max_length, **options)
            columns = {name: list(value) for name, value in encoded.items()}
            if self.loss != MASKED:
                self._end(columns)
                columns["labels"] = list(columns["input_ids"])
        if self.arguments is not None:
            needed = self.arguments | {"labels", SPECIAL, OFFSETS}
            columns = {name: value for name, value in columns.items() if name in needed}
        if not columns["input_ids"]:
            raise TrainingError("a text is empty, and the tokenizer adds no token to it", hint="leave such rows out")
        highest = max([*columns["input_ids"], *columns.get("labels", ())])
        if self.vocabulary is not None and highest >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise TrainingError(
                f"the token {token!r} has id {highest}, but the embedding has {self.vocabulary} rows",
                hint="use the tokenizer of the network's training",
            )
        return columns

    def _completed(self, prompt: str, completion: str) -> dict[str, list[Any]]:
        """Tokenize a prompt and its completion.

        The tokens are those of the joined text if they begin with the prompt's, as in generation; otherwise the
        prompt's and the completion's tokens are concatenated.
        """
        before = self.tokenizer(prompt, verbose=False)["input_ids"]
        ends = {self.tokenizer.eos_token_id, self.tokenizer.sep_token_id} - {None}
        while before and before[-1] in ends and not prompt.endswith(self.tokenizer.convert_ids_to_tokens(before[-1])):
            before = before[:-1]  # generation continues a prompt without an end token
        tokens = self.tokenizer(prompt + completion, verbose=False)["input_ids"]
        if tokens[: len(before)] != before:
            tokens = before + self.tokenizer(completion, add_special_tokens=False, verbose=False)["input_ids"]
        columns: dict[str, list[Any]] = {"input_ids": tokens, "attention_mask": [1] * len(tokens)}
        self._end(columns)
        if len(before) >= self.max_length:
            raise TrainingError(
                f"its prompt has {len(before)} tokens, which leaves no room for the completion in {self.max_length}",
                hint="raise max_length, or leave such rows out: on_error: skip",
            )
        columns["labels"] = [IGNORED] * len(before) + columns["input_ids"][len(before) :]
        return columns

    def _end(self, columns: dict[str, list[Any]]) -> None:
        """Append the end-of-text token, unless the tokenizer did."""
        tokenizer = self.tokenizer
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
        if end is None or columns["input_ids"][-1:] == [end]:
            return
        for name, column in columns.items():
            column.append(end if name == "input_ids" else 1 if name == "attention_mask" else (column or [0])[-1])

    def _blocks(self, encoded: Sequence[dict[str, list[Any]]], part: str) -> list[dict[str, list[Any]]]:
        names = list(encoded[0]) if encoded else []
        stream = {name: [value for columns in encoded for value in columns[name]] for name in names}
        size, length = self.max_length, len(stream.get("input_ids", ()))
        if length < size:
            raise TrainingError(
                f"{self.where} has {length} tokens for {part}, but a block has {size}",
                where=f"{WHERE}.max_length",
                hint=f"use max_length: {max(2, length // 8)}, or packing: none",
            )
        if length % size:
            self.notes.append(
                f"{self.where}: the last {length % size} of {length} {part} tokens fill no block of {size}"
            )
        starts = range(0, length - size + 1, size)
        return [{name: column[start : start + size] for name, column in stream.items()} for start in starts]
