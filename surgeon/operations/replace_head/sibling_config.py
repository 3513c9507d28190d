"""Change the config of a transformers network for its new class: labels, padding, direction, blocks read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from surgeon.data.processors import load_tokenizer, padding_token
from surgeon.errors import ArchitectureError, TrainingError
from surgeon.families.registry import config_of
from surgeon.families.transformers.tasks import FEATURES_READ, READS_BACK, class_for, does, reads_padding

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery


def set_up(operation: ReplaceHeadFields, model: Any) -> None:
    """Set the number of classes in the config."""
    config = config_of(model)
    assert config is not None  # every network of transformers has one
    if operation.classes is not None:
        config.set_labels(operation.classes, operation.problem_type)
    elif operation.task == "question_answering":
        config.set_labels(2, None)


def pad(surgery: Surgery, cls: Any, config: Any) -> None:
    """Set the padding token, because a decoder scores the last token that is not padding.

    The tokenizer beside the weights says which, as in training; without one the config, then the end of a text.
    """
    if not does(cls.__name__, config.model_type, "sequence_classification"):
        return
    text = config.get_text_config()
    stated = getattr(text, "pad_token_id", None)
    if stated is not None and not reads_padding(cls):
        return
    token = surgery.recall("padding", lambda: _tokenizer_padding(surgery)) if surgery.is_recorded("padding") else None
    size = getattr(text, "vocab_size", None)
    if token is not None and isinstance(size, int) and token >= size:
        surgery.note(f"the tokenizer pads with token {token}, and the embedding has {size} rows: it is not taken")
        token = None
    if token is not None:
        if token != stated:
            text.pad_token_id = token
            named = "none" if stated is None else stated
            surgery.note(f"pad_token_id is {token}, as the tokenizer pads; the config names {named}")
        return
    if stated is not None:
        return
    end = getattr(text, "eos_token_id", None)
    end = end[0] if isinstance(end, (list, tuple)) and end else end
    if isinstance(end, int):
        text.pad_token_id = end
        surgery.note(f"the config names no token that pads: pad_token_id is the end of a text, {end}")
    else:
        surgery.note(f"the config names no token that pads, without which {cls.__name__} takes one text at a time")


def _tokenizer_padding(surgery: Surgery) -> int | None:
    """Return the token that the tokenizer beside the weights pads with; None if there is none or it cannot be made."""
    files = {companion.name: companion.data for companion in surgery.record.companions if companion.kind == "tokenizer"}
    try:
        return padding_token(load_tokenizer(files)) if files else None
    except TrainingError:
        return None


def turn(operation: ReplaceHeadFields, config: Any) -> str:
    """Let the trunk of an encoder read in the direction that a language head needs; returns what to note.

    A head for the next token on a trunk that reads in both directions would see the answer.
    """
    if operation.task not in ("causal_lm", "masked_lm") or class_for("masked_lm", config.model_type) is None:
        return ""
    back = operation.task == "causal_lm"
    fields = [name for name in READS_BACK if getattr(config, name, back) is not back]
    for name in fields:
        setattr(config, name, back)
    listed = ", ".join(f"{name}: {str(back).lower()}" for name in fields)
    way = "from left to right, each token from those before it" if back else "in both directions"
    return f"the trunk reads texts {way} now ({listed} in the config)" if fields else ""


def choose_features(cls: Any, config: Any) -> str:
    """Let the config name the blocks that a head reads, where it names another number of them; returns what to note.

    Raises:
        ArchitectureError: The network has too few blocks.
    """
    field, depths = FEATURES_READ.get(cls.__name__, ("", ()))
    if not field or len(getattr(config, field) or ()) == len(depths):
        return ""
    total = config.num_hidden_layers
    if total < len(depths):
        raise ArchitectureError(
            f"{cls.__name__} reads {len(depths)} blocks ({field} of the config), and this network has {total}"
        )
    chosen: list[int] = []
    for remaining, depth in zip(range(len(depths) - 1, -1, -1), depths, strict=True):
        lowest = chosen[-1] + 1 if chosen else 1
        chosen.append(min(max(round(depth * total) - 1, lowest), total - remaining))
    setattr(config, field, chosen)
    return f"the head reads the blocks {', '.join(map(str, chosen))} of {total}: {field} of the config"
