"""Read texts for a language model: make tokens of them, hold some out, mask or pack them."""

from __future__ import annotations

from typing import Any

from surgeon.data.corpus_texts import WHERE, CorpusSource, Text, texts_by_part
from surgeon.data.network import ANY, DECODED, MASKED, NEXT_TOKEN, SEQUENCES, Network
from surgeon.data.row_splits import SPLIT_SEED, complement, digest, draw, fold, hold_out
from surgeon.data.spans import SpanCorruption, first_token, spans_of
from surgeon.data.text_pairs import check_pairs
from surgeon.data.token_encoder import Encoder
from surgeon.data.token_rows import OFFSETS, SPECIAL, Masking, TokenCollate, TokenRows, Varies
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits


def load_corpus(source: CorpusSource, seed: int, network: Network = ANY) -> Splits:
    """Return the texts of a source as samples for a language model.

    Args:
        source: The source in the recipe.
        seed: The seed for drawing texts and masks.
        network: The tokens that it predicts, its limits, and its tokenizer.

    Raises:
        TrainingError: The network is not a language model, a text cannot be read or used, or nothing can be held out.
    """
    loss = predicted(network)
    notes: list[str] = []
    parts, rule = _held_out(source, texts_by_part(source, notes), seed)
    encoder = Encoder.of(source, network, loss, notes)
    masking: Varies | None = None
    start = None
    if network.language == SEQUENCES:
        masking = spans_or_pairs(source, network, encoder.tokenizer, seed)
        start = first_token(network, encoder.tokenizer)
    elif loss == MASKED:
        masking = Masking(encoder.tokenizer, source.masked, source.whole_words, seed)
    samples = {}
    for name, texts in parts.items():
        rows, ids = encoder.rows(texts, name)
        samples[name] = TokenRows(rows, ids, masking, varied=name == "train")
    names = [name for name in samples["train"].rows[0] if name not in ("labels", SPECIAL, OFFSETS)]
    shifted = encoder.tokenizer.padding_side == "left" and not encoder.packed
    positions = shifted and "position_ids" in (network.preprocessing.arguments or ())
    digests = {name: digest(text.name for text in texts) for name, texts in parts.items() if name != "train"}
    return Splits(
        samples["train"],
        samples["test"],
        (*names, *(["position_ids"] if positions else []), *([DECODED] if start is not None else [])),
        collate=TokenCollate(encoder.tokenizer, positions, start),
        validation=samples.get("validation"),
        preprocessing={"texts": {"max_length": encoder.max_length}},
        notes=tuple(dict.fromkeys(notes)),
        split={"rule": rule, "seed": SPLIT_SEED, "held_out": digests},
    )


def spans_or_pairs(source: CorpusSource, network: Network, tokenizer: Any, seed: int) -> SpanCorruption | None:
    """Make the span corruption for a network that writes one text by reading another; None if the source has pairs.

    Raises:
        TrainingError: The source, its settings or the tokenizer do not go with such a network.
    """
    if source.messages is not None:
        raise TrainingError(
            "messages are for networks that predict the next token, and this one writes one text by reading another",
            where=f"{WHERE}.messages",
            hint="give two columns: prompt: COLUMN, completion: COLUMN",
        )
    if source.prompt is None:
        return spans_of(source, network, tokenizer, seed)
    if network.head("labels").loss == MASKED:
        raise TrainingError(
            "masked leaves out parts of one text, and the source has pairs: the network writes each completion",
            where="train.objectives",
            hint="leave objectives out, or give one column: text: COLUMN",
        )
    check_pairs(source, network, tokenizer)
    return None


def predicted(network: Network) -> str:
    """Return what a network predicts, ``next_token`` or ``masked``: by the loss of its labels, else by its class.

    Raises:
        TrainingError: It predicts no tokens, or one sequence from another.
    """
    loss = network.head("labels").loss
    if loss == NEXT_TOKEN and network.language == MASKED:
        raise TrainingError(
            "the network reads texts in both directions, so it sees the token that next_token predicts",
            where="train.objectives",
            hint="loss: masked, or leave objectives out",
        )
    if loss == MASKED and network.language == NEXT_TOKEN:
        raise TrainingError(
            "the network reads texts from left to right, and masked needs the tokens on both sides",
            where="train.objectives",
            hint="loss: next_token, or leave objectives out",
        )
    if loss == NEXT_TOKEN and network.language == SEQUENCES:
        raise TrainingError(
            "the network writes one sequence by reading another, and next_token needs one that continues its text",
            where="train.objectives",
            hint="leave objectives out: it learns to write completions, or the spans that are left out of a text",
        )
    if loss in (NEXT_TOKEN, MASKED):
        return loss
    if network.language == SEQUENCES:
        return MASKED
    if network.language is None and network is not ANY:
        raise TrainingError(
            "a corpus trains a language model, and the network predicts no tokens",
            where=WHERE,
            hint="make it one: replace_head with task: masked_lm or causal_lm; or name labels: {source: table, …}",
        )
    return network.language or NEXT_TOKEN


def _held_out(source: CorpusSource, parts: dict[str, list[Text]], seed: int) -> tuple[dict[str, list[Text]], str]:
    """Return the texts of each part, and the rule that chose the test part."""
    train, rule = parts["train"], "by file" if source.test_path else "by folder"
    if "test" in parts and source.folds is not None:
        raise TrainingError("both folds and test samples are given; use one of them", where=WHERE)
    if "test" not in parts:
        if len(train) < 2:
            raise TrainingError(
                f"{source.path} has only one text, so none can be held out",
                where=f"{WHERE}.path",
                hint="use unit: paragraph or line, or give test_path",
            )
        folds = source.folds
        size = len(train)
        if folds is None:
            held_rows, rule = hold_out(size, source.test_fraction), f"{source.test_fraction:g} of the texts held out"
        else:
            held_rows, rule = fold(size, folds.count, folds.index), f"fold {folds.index} of {folds.count}"
        parts["test"] = [train[position] for position in held_rows]
        train = [train[position] for position in complement(size, held_rows)]
    if source.samples is not None:
        if source.samples > len(train):
            raise TrainingError(
                f"data.samples is {source.samples}, but {source.path} has only {len(train)} training texts",
                hint="use fewer, or leave samples out for all",
            )
        train = [train[position] for position in draw(len(train), source.samples, seed)]
    parts["train"] = train
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}, rule
