"""Refuse training that asks of a network what it does not predict, before a weight is read or anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from surgeon.data.corpus import predicted, spans_or_pairs
from surgeon.data.network import CLASS_LOSS, SEQUENCES
from surgeon.data.readers import called, check_columns, read
from surgeon.data.sources import Columns, Corpus
from surgeon.data.texts import open_texts
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.operation import training_requests
from surgeon.interfaces.training import Objective
from surgeon.pipeline.prepare import Prepared
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.class_names import MAIN, network_of
from surgeon.training.language import language_of
from surgeon.training.load_splits import prepared_as, sources_of
from surgeon.training.objectives import refuse_queries

LONE = "output"
"""What a trace calls the output of a network that returns one tensor, which training has another name for."""


def check_task(prepared: Prepared, settings: TrainSettings) -> None:
    """Refuse data and losses that do not go with what a network returns.

    Args:
        prepared: The network after surgery, without its weights.
        settings: How it is to be trained.

    Raises:
        TrainingError: Texts for a network that predicts no tokens, classes of texts for one that predicts nothing
            else, or a loss of an output that there is not.
    """
    model, outputs = prepared.model, prepared.plan.outputs
    requests = training_requests(prepared.recipe.operations)
    objectives = [*(settings.objectives or ()), *requests.objectives]
    network = network_of(model, objectives, default=settings.objectives is None)
    for number, source in enumerate(sources_of(settings)):
        if isinstance(source, Corpus):
            predicted(network)
            if network.language == SEQUENCES:
                stated = prepared_as(network, prepared.record, [source])
                texts = open_texts(source.text, source.tokenizer, source.max_length, stated)
                spans_or_pairs(source, network, texts.tokenizer, 0)
        elif isinstance(source, Columns) and source.text is not None and language_of(model) is not None:
            _refuse_classes(model, source, objectives, f"train.data.{number}" if number else "train.data")
    if outputs and set(outputs) != {LONE}:
        conserved = {name for penalty in requests.penalties for name in penalty.conserved()}
        # a detector trains by a loss of its own, not by one of its outputs
        default = settings.objectives is None and network.detector is None
        _check_outputs(outputs, objectives, default=default, conserved=conserved)


def _refuse_classes(model: nn.Module, source: Columns, objectives: Sequence[Objective], where: str) -> None:
    """Refuse a class for each text as label of an output that has a prediction for each token."""
    side_labels = {objective.label for objective in objectives if objective.output not in MAIN}
    labels = {objective.label for objective in objectives if objective.output in MAIN} or {"labels"} - side_labels
    columns = {column for label in labels & set(source.targets) for column in _listed(source.targets[label])}
    if not columns:
        return
    rows = read(source).parts["train"].rows
    check_columns(source, rows.column_names, called(source))
    for column in sorted(columns):
        if hasattr(rows.features[column], "feature"):  # a list for each text: a label for each of its tokens
            continue
        pairs = f"prompt: {source.text}, completion: {column}"
        raise TrainingError(
            f"{type(model).__name__} predicts tokens, and the column {column!r} holds one label for each text",
            where=where,
            hint="to classify texts, give it a head: {op: replace_head, classes: [...]}; to train it on the texts "
            f"themselves: {{source: corpus, path: ..., text: ...}}; to write one by the other: {{..., {pairs}}}",
        )


def _check_outputs(
    outputs: Mapping[str, Any], objectives: Sequence[Objective], *, default: bool, conserved: set[str]
) -> None:
    for objective in objectives:
        if objective.output not in outputs:
            raise TrainingError(
                f"unknown output {objective.output!r} (available: {', '.join(outputs)})",
                where="train.objectives: output",
                hint=suggest(objective.output, outputs),
            )
    free = [name for name in outputs if name not in conserved]
    if default and not objectives:
        refuse_queries(free)
    if default and not objectives and len(free) > 1 and not set(free) & set(MAIN):
        raise TrainingError(
            f"the network returns {', '.join(outputs)}, and no prediction that {CLASS_LOSS} could train",
            where="train.objectives",
            hint="give it a head: replace_head; or say which output to train: objectives: [{output: NAME, …}]",
        )


def _listed(columns: str | list[str]) -> list[str]:
    return [columns] if isinstance(columns, str) else columns
