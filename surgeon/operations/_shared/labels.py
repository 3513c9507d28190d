"""What a network says of its own classes: transformers configs, and counts kept as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from surgeon.operations._shared.head_options import Classes, count

if TYPE_CHECKING:
    from surgeon.operations._shared.problem_type import ProblemType


def set_labels(model: nn.Module, classes: Classes, problem_type: ProblemType | None) -> None:
    """Let the config of ``model``, and its own count of classes, agree with its new head."""
    number = count(classes)
    names = classes if isinstance(classes, list) else [f"LABEL_{i}" for i in range(number)]
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "id2label"):
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
        config.problem_type = problem_type
    for name in ("num_labels", "num_classes"):
        if isinstance(vars(model).get(name), int):
            setattr(model, name, number)


def untie(model: nn.Module) -> None:
    """Say in the config that the vocabulary head has weights of its own."""
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "tie_word_embeddings", False):
        config.tie_word_embeddings = False


def is_vocabulary_head(model: nn.Module, module: nn.Module) -> bool:
    """Whether ``module`` predicts the tokens of a language model."""
    embeddings = getattr(model, "get_output_embeddings", None)
    return callable(embeddings) and embeddings() is module
