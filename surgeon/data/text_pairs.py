"""Tokenize pairs of texts for a network that writes one text by reading another: translations, summaries, answers."""

from __future__ import annotations

from typing import Any

from surgeon.data.network import Network
from surgeon.errors import TrainingError

WHERE = "train.data"


def check_pairs(source: Any, network: Network, tokenizer: Any) -> None:
    """Refuse settings and tokenizers that pairs have no use for.

    Raises:
        TrainingError: A setting would be ignored, or it is not known how the text to write begins or ends.
    """
    for name in ("masked", "whole_words"):
        if name in source.model_fields_set:
            raise TrainingError(
                f"{name} is for networks that fill in texts, and this one writes each completion whole",
                where=f"{WHERE}.{name}",
                hint="leave it out",
            )
    if source.packing == "blocks":
        raise TrainingError(
            "pairs of a prompt and its completion are not packed into blocks for a network that reads one text and "
            "writes another",
            where=f"{WHERE}.packing",
            hint="leave it out",
        )
    if network.decoder_start is None:
        raise TrainingError(
            "the network's config does not say which token a text that it writes begins with",
            where=WHERE,
            hint="set decoder_start_token_id in its config.json, as the network was trained",
        )
    if hasattr(tokenizer, "tgt_lang") and tokenizer.tgt_lang is None:
        raise TrainingError(
            f"{type(tokenizer).__name__} marks texts with their language, and has none for what is written",
            where=f"{WHERE}.tokenizer",
            hint="set its src_lang and tgt_lang, save it with save_pretrained, and give that folder: tokenizer: FOLDER",
        )
    ending = tokenizer(text_target="a", verbose=False)["input_ids"][-1:]
    if hasattr(tokenizer, "tgt_lang") and ending not in ([tokenizer.eos_token_id], [network.decoder_start]):
        # MBart and PLBart begin what they write with the language at the end of its labels
        raise TrainingError(
            f"the tokenizer ends texts with {tokenizer.convert_ids_to_tokens(ending)[0]!r}, and the network's config "
            f"begins them with token {network.decoder_start}",
            where=f"{WHERE}.tokenizer",
            hint=f"set decoder_start_token_id to {ending[0]} in its config.json, or tgt_lang of the tokenizer",
        )
    if tokenizer.eos_token_id is None or tokenizer.padding_side != "right":
        lacks = "has no end-of-text token" if tokenizer.eos_token_id is None else "pads on the left"
        needed = "where a text ends" if tokenizer.eos_token_id is None else "a text from its first token on"
        raise TrainingError(
            f"the tokenizer {lacks}, and the network learns {needed}",
            where=f"{WHERE}.tokenizer",
            hint="use the tokenizer of the network's training",
        )


def read_and_written(
    tokenizer: Any, prompt: str, completion: str, max_length: int
) -> tuple[dict[str, list[Any]], bool]:
    """Tokenize the text to read, and as ``labels`` the text to write, each with its own end and language.

    Args:
        tokenizer: The tokenizer.
        prompt: The text to read.
        completion: The text to write.
        max_length: The most tokens of each.

    Returns:
        The columns, and whether one of the two texts was cut.
    """
    cut = False

    def tokens_of(**text: str) -> Any:
        nonlocal cut
        tokens = tokenizer(**text, verbose=False)
        if len(tokens["input_ids"]) <= max_length:
            return tokens
        cut = True  # by the tokenizer, which keeps the end-of-text token
        return tokenizer(**text, truncation=True, max_length=max_length, verbose=False)

    columns = {name: list(value) for name, value in tokens_of(text=prompt).items()}
    written = list(tokens_of(text_target=completion)["input_ids"])
    if tokenizer.eos_token_id not in written[-2:]:  # the last token of some is the language
        cut = cut or len(written) == max_length
        written = [*written[: max_length - 1], tokenizer.eos_token_id]
    return {**columns, "labels": written}, cut
