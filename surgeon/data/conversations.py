"""Make tokens of conversations with a tokenizer's chat template, and find what the assistant says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from surgeon.data.labels import IGNORED
from surgeon.errors import TrainingError

ASSISTANT = "assistant"
GENERATION = re.compile(r"\{%-?\+?\s*generation\b")
"""What a template that marks the assistant's turns contains."""
WHERE = "train.data.messages"

Messages = Sequence[dict[str, Any]]


def messages_in(value: Any) -> tuple[dict[str, Any], ...]:
    """Return the messages of a cell, without fields that are empty.

    Raises:
        TrainingError: It holds no conversation, or one in which the assistant says nothing.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise TrainingError(f"{str(value)[:60]!r} is not a list of messages", where=WHERE)
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise TrainingError(
                f"{str(message)[:60]!r} is not a message",
                where=WHERE,
                hint='a message has a role and a content, as in {"role": "user", "content": "…"}',
            )
    if not any(message["role"] == ASSISTANT and message["content"] for message in value):
        raise TrainingError("the assistant says nothing in it, so there is nothing to learn", where=WHERE)
    return tuple({name: field for name, field in message.items() if field is not None} for message in value)


def check_template(tokenizer: Any) -> None:
    """Refuse a tokenizer that cannot make tokens of a conversation.

    Raises:
        TrainingError: It has no chat template, or does not say where its tokens stand in a text.
    """
    if not tokenizer.chat_template:
        raise TrainingError(
            "the tokenizer has no chat template, which says how a conversation becomes a text",
            where=WHERE,
            hint="use a tokenizer with one (tokenizer: FOLDER), put chat_template.jinja beside it, or give texts: "
            "prompt: COLUMN, completion: COLUMN",
        )
    if not tokenizer.is_fast:
        raise TrainingError(f"{type(tokenizer).__name__} does not say where its tokens stand in a text", where=WHERE)


def learnt_turns(tokenizer: Any, messages: Messages, length: int) -> dict[str, list[Any]]:
    """Return the tokens of a conversation, with labels where the assistant speaks.

    A template that marks its turns (``{% generation %}``) says which tokens these are. Of another template they are
    what it adds to the conversation before an answer, with the prompt for one.

    Raises:
        TrainingError: The template refuses the conversation or changes earlier turns, or all answers are cut off.
    """
    text = _rendered(tokenizer, messages)
    if GENERATION.search(str(tokenizer.chat_template)):
        encoded = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        tokens, spoken = list(encoded["input_ids"]), [bool(mark) for mark in encoded["assistant_masks"]]
    else:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        tokens, turns = list(encoded["input_ids"]), _turns(tokenizer, messages, text)
        spoken = [any(start <= at < end for start, end in turns) for at, _ in encoded["offset_mapping"]]
    if not any(spoken[:length]):
        raise TrainingError(
            f"the assistant's first answer begins after {length} tokens, which is all that a sample has",
            hint="raise max_length, or leave such rows out: on_error: skip",
        )
    labels = [token if mark else IGNORED for token, mark in zip(tokens, spoken, strict=True)]
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}


def _turns(tokenizer: Any, messages: Messages, text: str) -> list[tuple[int, int]]:
    """Return where the assistant's turns begin and end in the text of a conversation."""
    turns = []
    for place, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        before = _rendered(tokenizer, messages[:place], prompt=True) if place else ""
        after = _rendered(tokenizer, messages[: place + 1])
        if not after.startswith(before) or not text.startswith(after):
            raise TrainingError(
                "the chat template writes earlier turns differently once a conversation goes on, so that the "
                "assistant's cannot be found in it",
                where=WHERE,
                hint="use a template that marks them with {% generation %}, or conversations of one answer at the end",
            )
        turns.append((len(before), len(after)))
    return turns


def _rendered(tokenizer: Any, messages: Messages, *, prompt: bool = False) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))
    except Exception as error:  # a template may raise anything: it is a program
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the chat template refuses the conversation: {reason}", where=WHERE) from error
