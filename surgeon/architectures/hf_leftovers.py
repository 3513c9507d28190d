"""Tell tensors of other classes on the same trunk: a pooler, a next-sentence head, in a file of a masked LM."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture_name import Architecture

if TYPE_CHECKING:
    from surgeon.interfaces.architecture import ArchitectureProvider

PRETRAINING = re.compile(r"^cls\.seq_relationship\.(weight|bias)$")
"""The next-sentence head of BERT's pre-training, which files of later models hold though transformers never had it."""


def of_siblings(
    provider: ArchitectureProvider, architecture: Architecture, classes: Mapping[str, set[str]], names: Iterable[str]
) -> set[str]:
    """Return those of ``names`` that another class has, built from the same config, and ``architecture`` lacks.

    The config is the same, so the trunk is too: what only the other class has is a pooler or a head of it.

    Args:
        provider: What builds the classes.
        architecture: The class that the file is of, and its config.
        classes: The classes of each model type.
        names: Names in a file for which ``architecture`` has no place.
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
    """Sort the base class before the one for pre-training, and that before the others: they hold most leftovers."""
    order = 0 if name.endswith("Model") else 1 if name.endswith("ForPreTraining") else 2
    return order, name
