"""Load the splits of a recipe's ``train:`` section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from surgeon.architectures.preprocessing import preprocessing_of
from surgeon.data.combine import combined, load_sources
from surgeon.data.network import ANY, Network
from surgeon.data.rows import groups_of
from surgeon.data.sources import as_sources
from surgeon.errors import TrainingError, counted
from surgeon.interfaces.data import Source
from surgeon.interfaces.preprocessing import Preprocessing
from surgeon.interfaces.record import Record
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings

OF_FILES = ("table", "images", "masks", "coco", "conll")
"""Kinds of sources that read one file or folder, whose rows have the same names in every reading."""


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
    for source, part in zip(train, parts, strict=True):
        for other, evaluation in zip(evaluate, evaluated, strict=True):
            _check_rows(source, part, other, evaluation)
    plain = len(train) == 1 and train[0].domain is None and train[0].labels == "visible"
    if plain and len(evaluate) <= 1:
        splits = _tested_on(parts[0], evaluated[0]) if evaluated else parts[0]
    else:
        splits = combined(train, parts, evaluate or train, evaluated or parts)
    _check_groups(splits)
    return splits


def _check_rows(source: Source, part: Splits, other: Source, evaluation: Splits) -> None:
    """Refuse to test on rows of a file that are trained on, where two sources divide it in different ways.

    Raises:
        TrainingError: There are such rows.
    """
    if _file(source, None) is None or _file(source, None) != _file(other, "test_path"):
        return
    trained, tested = (_row_ids(samples) for samples in (part.train, evaluation.test))
    if shared := set(trained) & set(tested):
        raise TrainingError(
            f"{len(shared)} of {len(tested)} test rows of {getattr(source, 'path', '')} are trained on: data and "
            "evaluate divide it in different ways",
            where="train.evaluate",
            hint="give both the same test_fraction, folds and group, or leave evaluate out",
        )


def _file(source: Source, key: str | None) -> Path | None:
    """Return the file or folder that a source reads; with ``key``, that of these samples if it is another."""
    path = (key and getattr(source, key, None)) or getattr(source, "path", None)
    return Path(path).resolve() if path and getattr(source, "kind", None) in OF_FILES else None


def _row_ids(samples: Any) -> list[str]:
    return samples.row_ids(range(len(samples))) if hasattr(samples, "row_ids") else []


def _check_groups(splits: Splits) -> None:
    """Refuse groups that are in training and in a part that measures it.

    Raises:
        TrainingError: There is one.
    """
    trained = {str(group) for group in groups_of(splits.train) or () if group is not None}
    for name, samples in (("test", splits.test), ("validation", splits.validation)):
        others = {str(group) for group in groups_of(samples) or () if group is not None}
        if shared := sorted(trained & others):
            raise TrainingError(
                f"training and {name} samples have {counted(len(shared), 'group')} of rows in common: "
                f"{', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}",
                where="train.data.group",
                hint="put all rows of a group into one file; groups that are not the same need different names",
            )


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
