"""Recognise tensors of other heads on the same trunk, such as a pooler in a file of a masked LM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from surgeon.interfaces.architecture import ArchitectureProvider

PRETRAINING = re.compile(r"^cls\.seq_relationship\.(weight|bias)$")
"""BERT's next-sentence head, which files of later models contain although their classes never had it."""


def of_siblings(
    provider: ArchitectureProvider, architecture: Architecture, classes: Mapping[str, set[str]], names: Iterable[str]
) -> set[str]:
    """Return those of ``names`` that another class with the same config has and ``architecture`` does not.

    The config is the same, so the trunk is too: only a pooler or a head can differ.

    Args:
        provider: Builds the classes.
        architecture: The class of the file, with its config.
        classes: The classes of each model type.
        names: Names in a file that ``architecture`` does not have.
    """
    from surgeon.architectures.identify import build

    unexplained = set(names)
    leftovers = {name for name in unexplained if PRETRAINING.search(name)}
    config = architecture.options.get("config", {})
    for sibling in sorted(classes.get(config.get("model_type", ""), set()) - {architecture.name}, key=_plain_first):
        if unexplained <= leftovers:
            break
        try:
            model = build(provider, architecture.model_copy(update={"name": sibling}))
        except ArchitectureError:  # a class for another part of the config, or one that needs an option
            continue
        prefix = str(getattr(model, "base_model_prefix", ""))
        tensors = model.state_dict()
        leftovers |= unexplained.intersection([*tensors, *(f"{prefix}.{name}" for name in tensors)])
    return leftovers


def _plain_first(name: str) -> tuple[int, str]:
    """Sort base classes first, then those for pre-training, then others: the first have most leftovers."""
    order = 0 if name.endswith("Model") else 1 if name.endswith("ForPreTraining") else 2
    return order, name
