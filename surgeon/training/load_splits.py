"""Load the splits of a recipe's ``train:`` section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from surgeon.architectures.preprocessing import preprocessing_of
from surgeon.data.combine import combined, load_sources
from surgeon.data.network import ANY, Network
from surgeon.data.sources import as_sources
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import Preprocessing
from surgeon.interfaces.record import Record
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings


def load_splits(settings: TrainSettings, seed: int = 0, network: Network = ANY) -> Splits:
    """Load the training, validation and test data of a recipe's ``train:`` section.

    Args:
        settings: The section.
        seed: The seed for drawing samples and variations.
        network: What the data must fit; see :func:`surgeon.training.class_names.network_of`.

    Raises:
        TrainingError: Data cannot be read, or training and test data do not match.
    """
    train = as_sources(settings.data)
    evaluate = as_sources(settings.evaluate) if settings.evaluate is not None else []
    trained = [source.labels == "visible" for source in train] + [False] * len(evaluate)
    loaded = load_sources([*train, *evaluate], seed, network, trained)
    parts, evaluated = loaded[: len(train)], loaded[len(train) :]
    first = parts[0].classes
    alone = first and evaluated and not any(set(part.classes) & set(first) for part in evaluated)
    for part in [*parts, *evaluated]:
        shared = set(part.classes) & set(first)
        if any(part.classes[name] != first[name] for name in shared) or (alone and part in evaluated):
            where = "train.evaluate.classes" if part in evaluated else "train.data"
            raise TrainingError(
                f"data have {dict(first)} classes and "
                f"{'evaluate' if part in evaluated else 'another source'} has {dict(part.classes)}",
                where=where,
            )
        if part.inputs != parts[0].inputs:
            raise TrainingError(
                f"sources have different inputs: {', '.join(parts[0].inputs)} and {', '.join(part.inputs)}",
                where="train.data",
            )
    plain = len(train) == 1 and train[0].domain is None and train[0].labels == "visible"
    if plain and len(evaluate) <= 1:
        return _tested_on(parts[0], evaluated[0]) if evaluated else parts[0]
    return combined(train, parts, evaluate or train, evaluated or parts)


def _tested_on(part: Splits, evaluation: Splits) -> Splits:
    """Return ``part`` with the test samples of ``evaluation``."""
    held_out = {**part.split.get("held_out", {}), **evaluation.split.get("held_out", {})}
    split = (
        {**part.split, "evaluate": evaluation.split.get("rule"), "held_out": held_out}
        if part.split
        else dict(evaluation.split)
    )
    notes = tuple(dict.fromkeys([*part.notes, *evaluation.notes]))
    return replace(part, test=evaluation.test, notes=notes, split=split)


def prepared_as(network: Network, model: nn.Module | Record, sources: Sequence[Any]) -> Network:
    """Return ``network`` with the preprocessing of ``model``'s checkpoint for ``sources``."""
    return replace(network, preprocessing=stated_for(model, sources))


def stated_for(model: nn.Module | Record, sources: Sequence[Any]) -> Preprocessing:
    """Return the preprocessing of ``model``'s checkpoint for the kinds of samples in ``sources``.

    Raises:
        CheckpointError: A companion file cannot be used; the error names it.
    """
    columns = {"image": "pictures", "audio": "sounds", "text": "texts"}
    kinds = {kind for column, kind in columns.items() if any(getattr(source, column, None) for source in sources)}
    if any(getattr(source, "kind", None) == "images" for source in sources):
        kinds.add("pictures")
    return preprocessing_of(model, kinds)


def sources_of(settings: TrainSettings) -> list[Any]:
    """Return all sources of a ``train:`` section."""
    settings_of_data = (settings.data, settings.evaluate)
    return [source for sources in settings_of_data if sources is not None for source in as_sources(sources)]
