"""Load the network that another one learns from."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from surgeon.architectures.source import Source
from surgeon.errors import CheckpointError, TrainingError
from surgeon.pipeline import api as engine
from surgeon.plugins import Plugins
from surgeon.recipe.train_settings import SOURCE
from surgeon.surgery.opened import OpenOptions
from surgeon.surgery.replay import open_from


def load_teacher(name: str, before: Callable[[], nn.Module] | None, plugins: Plugins) -> nn.Module:
    """Load a teacher, in eval mode.

    Args:
        name: ``source``, or whatever surgeon takes for a model; no pickle in it is executed.
        before: Loads the network as it was before the recipe's operations; None where that is not at hand.
        plugins: The plugins, with the code that may run.

    Raises:
        TrainingError: The network before the operations is not at hand.
        CheckpointError: The teacher is missing, damaged or unsafe, or has no weights.
        ArchitectureError: It is unknown.
    """
    if name != SOURCE:
        options = OpenOptions(plugins=plugins)
        return load_before(options.source(name), options)
    if before is None:
        raise TrainingError(
            "the network that the recipe was applied to is not at hand: only its result is",
            where="train.distill.teacher",
            hint="name it: --set train.distill.teacher=PATH, or model: PATH in the recipe",
        )
    return before()


def load_before(source: Source, options: OpenOptions) -> nn.Module:
    """Load the network that a source names, as a teacher.

    Raises:
        CheckpointError: It has no weights.
    """
    if source.checkpoint is None:
        raise CheckpointError(
            f"{source.location} names no weights: a network with random ones has nothing to teach",
            where="train.distill.teacher",
            hint=f"name its weights, for example {source.location}@DEFAULT",
        )
    return engine.load_opened(open_from(source, options))
