"""Predict for samples: run a network over them, and give its outputs their meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import IGNORED
from surgeon.data.network import CLASS_LOSS, MASKED, NEXT_TOKEN, NUMBER_LOSSES, Network
from surgeon.data.rows import several, words_of
from surgeon.data.whole import Samples
from surgeon.data.word_texts import WORD_IDS
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.operation import Operation, training_requests
from surgeon.interfaces.record import record_of
from surgeon.interfaces.training import Objective
from surgeon.training.calls import MAIN, Batch, Call
from surgeon.training.class_names import adopt_padding, check_padding, default_loss
from surgeon.training.data_fit import outputs_of
from surgeon.training.detection import DETECTIONS, default_objective
from surgeon.training.language import language_of
from surgeon.training.objectives import call_of
from surgeon.training.penalties import in_eval_mode
from surgeon.training.places import by_word, classes_of_pixels, kind_of_places, shares_of
from surgeon.training.predictions import Predictions
from surgeon.training.word_predictions import WordPredictions

BATCH = 64


def predict_samples(
    model: nn.Module,
    samples: Sequence[Samples],
    network: Network,
    operations: Sequence[Operation],
    *,
    output: str | None = None,
    batch_size: int = BATCH,
) -> Predictions:
    """Run ``model`` over samples.

    Args:
        model: The network.
        samples: The samples to predict for.
        network: The names of the network's classes.
        operations: The operations applied to the network; their training objectives determine the meaning of outputs.
        output: The name of the output; None for the main output.
        batch_size: The number of samples in a batch.

    Raises:
        TrainingError: The data and the network do not match, or no such output has one row per sample.
    """
    values: list[Tensor] = []
    places: list[Tensor] = []
    words: list[list[str]] = []
    labels: list[Any] = []
    chosen = output
    objective: Objective | None = None
    kind: str | None = None
    notes: list[str] = []
    trained = [entry.output for entry in known_objectives(model, operations) if entry.weight]
    for source in samples:
        notes += source.notes
        for outputs, batch, start in run_batches(model, source, batch_size):
            if objective is None or chosen is None:
                chosen = main_output(outputs, trained) if output is None else output
                others = [name for name in outputs if name in trained and name != chosen]
                if output is None and others:
                    notes.append(f"other outputs: {', '.join(others)}; --of NAME, or output=NAME, predicts one of them")
                _check_there(outputs, chosen)
                objective = objective_of(model, operations, chosen, outputs[chosen])
                kind = _check_output(outputs, chosen, batch, objective)
            raw = outputs[chosen].float()
            counts: list[int] = []
            if kind == "words":
                words += (some_words := _words(source, batch, start))
                counts = list(map(len, some_words))
            if kind is not None:
                of_batch = by_word(raw.argmax(-1), batch[WORD_IDS], counts) if counts else classes_of_pixels(raw, batch)
                places += of_batch
                raw = torch.stack([shares_of(place, raw.shape[-1 if counts else 1]) for place in of_batch])
            values.append(raw.cpu().reshape(len(raw), -1))
            label = objective.label
            if label in source.original_labels:
                labels += source.original_labels[label][start : start + len(values[-1])]
            elif label in batch and label not in source.inputs:
                names = source.classes.get(label) or network.head(label).names
                labels += [_named(value, names, objective) for value in _labels(batch, label, counts)]
            else:
                labels += [None] * len(values[-1])
    if objective is None or chosen is None:
        raise TrainingError("there are no samples to predict for")
    meaning, names, table = _meaning(torch.cat(values), objective, network, samples, kind)
    unclassed = sum(int((place == IGNORED).sum()) for place in places)
    if unclassed:
        words_have = "1 word has" if unclassed == 1 else f"{unclassed} words have"
        notes.append(f"{words_have} no class: dropped by the tokenizer, or past the longest text")
    fields = (
        chosen,
        meaning,
        names,
        table,
        tuple(name for source in samples for name in source.names),
        labels if any(label is not None for label in labels) else None,
        tuple(part for source in samples for part in (source.parts or [""] * len(source)))
        if any(source.parts for source in samples)
        else (),
        tuple(dict.fromkeys(notes)),
        tuple(places),
    )
    return WordPredictions(*fields, tuple(words)) if meaning == "words" else Predictions(*fields)


def run_batches(model: nn.Module, samples: Samples, batch_size: int) -> Any:
    """Yield, in eval mode and without gradients, the outputs by name, the batch and the index of its first sample."""
    for call, batch, start in batches_of(model, samples, batch_size):
        with torch.no_grad(), in_eval_mode(model):
            outputs = outputs_of(model, call, batch)
        yield (
            {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()},
            batch,
            start,
        )


def batches_of(model: nn.Module, samples: Samples, batch_size: int) -> Iterator[tuple[Call, Batch, int]]:
    """Yield how to call ``model``, the batch on its device and the index of its first sample.

    Inputs get the dtype of the network's first weights, so that one of 16 or 64 bits runs as it is.
    """
    check_padding(model, samples.used)
    adopt_padding(model, samples.used)
    call = call_of(model, samples.inputs)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    dtype = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    for start in range(0, len(samples), batch_size):
        rows = several(samples.rows, range(start, min(start + batch_size, len(samples))))
        batch = {name: column.to(device) for name, column in samples.collate(rows).items()}
        cast = {name: batch[name].to(dtype) for name in samples.inputs if batch[name].is_floating_point()}
        yield call, {**batch, **cast}, start


def main_output(outputs: dict[str, Tensor], trained: Sequence[str] = ()) -> str:
    """Return the name of the main output of a network: its own, else the first that was ``trained``, else the first.

    Of columns, the new one is predicted, not the earlier task of a frozen one.
    """
    named = [name for name in MAIN if name in outputs]
    return next(iter([*named, *(name for name in outputs if name in trained), *outputs]))


def known_objectives(model: nn.Module, operations: Sequence[Operation]) -> list[Objective]:
    """Return the objectives recorded in training and those of operations."""
    record = record_of(model)
    entry = record.training[-1] if record is not None and record.training else {}
    recorded = entry.get("objectives") or entry.get("settings", {}).get("objectives") or ()
    objectives = [*map(Objective.model_validate, recorded), *training_requests(operations).objectives]
    return list({(entry.output, entry.loss, entry.label): entry for entry in reversed(objectives)}.values())[::-1]


def objective_of(model: nn.Module, operations: Sequence[Operation], output: str, values: Tensor) -> Objective:
    """Return the objective of an output, with its loss and label column; the default if none is recorded."""
    if output == DETECTIONS:
        return default_objective()
    matching = [objective for objective in known_objectives(model, operations) if objective.output == output]
    if matching:
        return next((objective for objective in matching if objective.weight), matching[0])
    loss = default_loss(model) if output in MAIN else CLASS_LOSS
    if loss == CLASS_LOSS and values.ndim == 2 and values.shape[1] == 1:
        loss = "bce"  # the softmax of a single logit is always 1
    elif loss == CLASS_LOSS and values.ndim == 3 and (language := language_of(model)) in (NEXT_TOKEN, MASKED):
        loss = str(language)
    return Objective(output=output, loss=loss)


def _check_there(outputs: dict[str, Tensor], chosen: str) -> None:
    if chosen not in outputs:
        raise TrainingError(
            f"unknown output {chosen!r} (available: {', '.join(outputs)})", hint=suggest(chosen, outputs) or None
        )


def _check_output(
    outputs: dict[str, Tensor], chosen: str, batch: Mapping[str, Tensor], objective: Objective
) -> str | None:
    """Return whether an output is of ``words`` or of ``pixels``; None if it has one row of numbers per sample."""
    values = outputs[chosen]
    if objective.loss == CLASS_LOSS and values.is_floating_point() and (kind := kind_of_places(values, batch)):
        return kind
    if values.ndim > 2 or not values.is_floating_point():
        raise TrainingError(
            f"the output {chosen!r} has shape {tuple(outputs[chosen].shape)}, not one row of numbers per sample",
            hint="it predicts tokens: write texts with transformers.pipeline, or surgeon evaluate for its perplexity"
            if objective.loss in (NEXT_TOKEN, MASKED)
            else "for classes of words, predict on a table whose texts are lists of words; surgeon evaluate accepts "
            "outputs of tokens too",
        )
    return None


def _words(source: Samples, batch: Mapping[str, Tensor], start: int) -> list[list[str]]:
    """Return the words of a batch's samples; empty texts where only their number is known."""
    ids = batch[WORD_IDS]
    words = words_of(source.rows, range(start, start + len(ids)))
    return [[""] * (int(row.max()) + 1) for row in ids] if words is None else words


def _labels(batch: Mapping[str, Tensor], label: str, counts: Sequence[int]) -> list[Tensor]:
    """Return the label of each sample, or those of its words, which ``counts`` counts."""
    if counts:
        return by_word(batch[label], batch[WORD_IDS], counts)
    return list(batch[label].cpu())


def _meaning(
    raw: Tensor, objective: Objective, network: Network, samples: Sequence[Samples], kind: str | None
) -> tuple[str, tuple[str, ...], Tensor]:
    """Return the kind, the names of the columns, and their values."""
    count = raw.shape[1]
    named = [network.head(objective.label).names, *(source.classes.get(objective.label, ()) for source in samples)]
    loss = "bce" if objective.loss == CLASS_LOSS and count == 1 else objective.loss
    names = next((tuple(map(str, class_list)) for class_list in named if len(class_list) == count), None)
    if kind is not None:
        return kind, names or tuple(map(str, range(count))), raw
    if loss == CLASS_LOSS:
        return "class", names or tuple(map(str, range(count))), raw.softmax(1)
    if loss == "bce":
        probability = raw.sigmoid()
        pair = next((tuple(map(str, class_list)) for class_list in named if len(class_list) == 2), None)
        if count == 1 and pair is not None:
            return "class", pair, torch.cat([1 - probability, probability], dim=1)
        return "yes", names or (("yes",) if count == 1 else tuple(map(str, range(count)))), probability
    return "value", names or (("value",) if count == 1 else tuple(map(str, range(count)))), raw


def _named(value: Tensor, names: Sequence[str], objective: Objective) -> Any:
    """Return a label by name; None if it is missing."""
    if value.ndim > 1 and objective.loss == CLASS_LOSS:
        return None  # of pixels
    if value.ndim:
        if objective.loss == CLASS_LOSS and not value.is_floating_point():
            return [_named(item, names, objective) for item in value]
        flat = value.reshape(-1).tolist()
        if objective.loss == "bce" and len(names) == len(flat):
            return [name for name, share in zip(names, flat, strict=True) if share > 0.5]
        return flat
    number = value.item()
    if number == IGNORED or number != number:
        return None
    by_name = objective.loss not in NUMBER_LOSSES or (objective.loss == "bce" and len(names) == 2)
    if by_name and number == int(number) and 0 <= number < len(names):
        return names[int(number)]
    return number
