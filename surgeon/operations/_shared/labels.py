"""Keep what a network says of its own classes true: fields of its config, and counts that it keeps as attributes."""

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
    """Let the config of ``model``, and the counts that it keeps itself, agree with its new head.

    Args:
        model: The network.
        classes: The names of the classes, or how many there are.
        problem_type: None where the loss is to be chosen by the labels' dtype.
        families: Declared facts of plugins.
    """
    number = classes if isinstance(classes, int) else len(classes)
    if (config := config_of(model, families)) is not None:
        config.set_labels(classes, problem_type)
        config.set_count([field for family in families_of(model, families) for field in family.counted_by], number)
    settings_of(model, families).set_labels(classes, problem_type)


def untie(model: nn.Module, families: Sequence[Family] = ()) -> None:
    """Say in the config that the vocabulary head has weights of its own."""
    if (config := config_of(model, families)) is not None:
        config.untie()


def is_vocabulary_head(model: nn.Module, module: nn.Module) -> bool:
    """Whether ``module`` predicts the tokens of a language model."""
    embeddings = getattr(model, "get_output_embeddings", None)
    return callable(embeddings) and embeddings() is module
