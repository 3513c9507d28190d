"""Update what a network records about its classes: fields of its config, and counts in its attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from surgeon.families.registry import config_of, families_of, settings_of
from surgeon.operations._shared.head_options import Classes

if TYPE_CHECKING:
    from surgeon.interfaces.family import Family
    from surgeon.operations._shared.problem_type import ProblemType


def set_labels(
    model: nn.Module, classes: Classes, problem_type: ProblemType | None, families: Sequence[Family] = ()
) -> None:
    """Update the config of ``model``, and the counts in its attributes, to match its new head.

    Args:
        model: The network.
        classes: The names of the classes, or their number.
        problem_type: None to choose the loss by the dtype of the labels.
        families: Declared facts of plugins.
    """
    number = classes if isinstance(classes, int) else len(classes)
    if (config := config_of(model, families)) is not None:
        config.set_labels(classes, problem_type)
        config.set_count([field for family in families_of(model, families) for field in family.counted_by], number)
    settings_of(model, families).set_labels(classes, problem_type)


def untie(model: nn.Module, families: Sequence[Family] = ()) -> None:
    """Record in the config that the vocabulary head is not tied to the embedding."""
    if (config := config_of(model, families)) is not None:
        config.untie()


def is_vocabulary_head(model: nn.Module, module: nn.Module) -> bool:
    """Return whether ``module`` predicts the tokens of a language model."""
    embeddings = getattr(model, "get_output_embeddings", None)
    return callable(embeddings) and embeddings() is module
