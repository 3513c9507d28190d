"""Predict for samples: one row each, with probabilities if the output is of classes or of questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import IGNORED
from surgeon.data.network import CLASS_LOSS, MASKED, NEXT_TOKEN, NUMBER_LOSSES, Network
from surgeon.data.rows import several
from surgeon.data.whole import Samples
from surgeon.data.word_texts import WORD_IDS
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.html_table import html_report, html_table
from surgeon.interfaces.operation import Operation, training_requests
from surgeon.interfaces.record import record_of
from surgeon.interfaces.training import Objective
from surgeon.training.calls import MAIN, Batch, Call
from surgeon.training.class_names import adopt_padding
from surgeon.training.data_fit import outputs_of
from surgeon.training.detection import DETECTIONS, default_objective
from surgeon.training.language import language_of
from surgeon.training.objectives import call_of
from surgeon.training.penalties import in_eval_mode
from surgeon.training.places import CLASSES, DENSE, classes_of_places, first_pieces, kind_of_places, shares_of

BATCH = 64
FEW = 8
"""How many columns a summary has: the first values, or the boxes of a picture."""
SUMMARISED = 20
"""How many samples a notebook shows."""
COLUMNS = ("sample", "part", "class", "label")
"""Columns of the table besides the probabilities."""
PROBLEMS = {"regression": "mse", "multi_label_classification": "bce"}
"""The losses of transformers' problem types; cross-entropy of others."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one output for samples.

    Attributes:
        output: The name of the output.
        kind: ``class`` (probabilities that add up to 1), ``yes`` (one probability for each question), ``value``,
            ``words`` and ``pixels`` (the share of a sample's words or pixels that is of each class), or ``boxes``.
        names: The names of the columns of ``values``: classes, questions or values.
        values: ``(samples, columns)``.
        samples: The names of the samples: files, or rows of a table.
        labels: The label of each sample, by name; None if a sample has no label, or for all.
        parts: The split of each sample; empty without splits.
        notes: Notes for the reader, about the samples read and left out, for example.
        places: For words and pixels, the class number of each: a tensor ``(words,)`` or ``(height, width)`` per sample.
    """

    output: str
    kind: str
    names: tuple[str, ...]
    values: Tensor
    samples: tuple[str, ...]
    labels: list[Any] | None = None
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    places: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def classes(self) -> list[Any]:
        """The class name of each sample; for questions the names of those answered with yes; for values None.

        For words, the class of each; for pixels, the classes of the picture, the most frequent first.
        """
        if self.kind == "words":
            return [[self.names[number] for number in place.tolist()] for place in self.places]
        if self.kind == "pixels":
            orders = self.values.argsort(1, descending=True).tolist()
            return [
                [self.names[i] for i in order if row[i] > 0] for order, row in zip(orders, self.values, strict=True)
            ]
        if self.kind == "class":
            return [self.names[best] for best in self.values.argmax(1).tolist()]
        if self.kind == "yes":
            return [[self.names[i] for i, value in enumerate(row) if value > 0.5] for row in self.values.tolist()]
        return [None] * len(self)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each sample: ``sample``, ``part`` if there are parts, ``class`` and ``probabilities`` by name
        (for questions a list of classes), or ``values`` by name, and ``label`` if there are labels."""
        table_rows = []
        for number, (values, chosen) in enumerate(zip(self.values.tolist(), self.classes, strict=True)):
            row: dict[str, Any] = {"sample": self.samples[number]}
            if self.parts:
                row["part"] = self.parts[number]
            by_name = dict(zip(self.names, values, strict=True))
            if self.kind == "value":
                row["values"] = by_name
            else:
                row |= {"class": chosen, "shares" if self.kind in DENSE else "probabilities": by_name}
            if self.labels is not None:
                row["label"] = self.labels[number]
            table_rows.append(row)
        return table_rows

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions as plain values, for JSON."""
        return {
            "output": self.output,
            "kind": self.kind,
            "names": list(self.names),
            "rows": self.rows,
            "notes": list(self.notes),
        }

    def to_table(self) -> list[list[str]]:
        """Return a header, and a row for each sample with a column for each name, as for a CSV file."""
        reserved = COLUMNS
        headings = [f"{name} (value)" if name in reserved else name for name in self.names]
        has_class, has_label = self.kind != "value", self.labels is not None
        header = ["sample", *(["part"] if self.parts else []), *(["class"] if has_class else []), *headings]
        table = [header + (["label"] if has_label else [])]
        for number, (values, chosen) in enumerate(zip(self.values.tolist(), self.classes, strict=True)):
            row = [self.samples[number], *([self.parts[number]] if self.parts else [])]
            row += [shown(chosen)] if has_class else []
            row += [f"{value:.6g}" for value in values]
            table.append(row + ([shown(self.labels[number])] if self.labels is not None else []))
        return table

    def summary(self, samples: int) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows to read: of the first samples, the likeliest classes or the first values."""
        headings = [
            *(["part"] if self.parts else []),
            *self._headings(),
            *(["label"] if self.labels is not None else []),
        ]
        rows = [
            [
                self.samples[number],
                *([self.parts[number]] if self.parts else []),
                *self._cells(number),
                *([shown(self.labels[number])] if self.labels is not None else []),
            ]
            for number in range(min(samples, len(self)))
        ]
        return ["sample", *headings], rows

    def _headings(self) -> Sequence[str]:
        """Return the headings of what a sample's cells show."""
        if self.kind == "class":
            return ("class", "probability", "next")
        return ("class",) if self.kind == "words" else self.names[:FEW]

    def _cells(self, number: int) -> list[str]:
        """Format what is predicted for one sample."""
        if self.kind == "words":
            return [shown([self.names[place] for place in self.places[number].tolist()])]
        values = self.values[number].tolist()
        if self.kind != "class":
            share = self.kind in ("yes", "pixels")
            return [f"{100 * value:.1f} %" if share else f"{value:.4g}" for value in values[:FEW]]
        best, *others = sorted(range(len(values)), key=lambda index: -values[index])
        following = ", ".join(f"{self.names[i]} {100 * values[i]:.1f} %" for i in others[:2])
        return [self.names[best], f"{100 * values[best]:.1f} %", following]

    def _repr_html_(self) -> str:
        """Show the first samples as a table in a notebook."""
        headings, rows = self.summary(SUMMARISED)
        more = [f"the first {len(rows)} are shown; rows has all"] if len(rows) < len(self) else []
        count = f"{len(self)} sample{'s' if len(self) != 1 else ''}"
        return html_report(f"output {self.output}: {count}", html_table(headings, rows), notes=[*more, *self.notes])


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
            if kind is not None:
                some = classes_of_places(raw, batch)
                places += some
                raw = torch.stack([shares_of(place, raw.shape[CLASSES[kind]]) for place in some])
            values.append(raw.cpu().reshape(len(raw), -1))
            label = objective.label
            if label in source.original_labels:
                labels += source.original_labels[label][start : start + len(values[-1])]
            elif label in batch and label not in source.inputs:
                names = source.classes.get(label) or network.head(label).names
                labels += [_named(value, names, objective) for value in _labels(batch, label, kind)]
            else:
                labels += [None] * len(values[-1])
    if objective is None or chosen is None:
        raise TrainingError("there are no samples to predict for")
    meaning, names, table = _meaning(torch.cat(values), objective, network, samples, kind)
    return Predictions(
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
    problem = getattr(getattr(model, "config", None), "problem_type", None) if output in MAIN else None
    loss = PROBLEMS.get(str(problem), CLASS_LOSS)
    if loss == CLASS_LOSS and values.ndim == 2 and values.shape[1] == 1:
        loss = "bce"  # the softmax of a single logit is always 1
    elif loss == CLASS_LOSS and values.ndim == 3 and (language := language_of(model)) in (NEXT_TOKEN, MASKED):
        loss = str(language)
    return Objective(output=output, loss=loss)


def shown(value: Any) -> str:
    """Format a label or a class as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


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


def _labels(batch: Mapping[str, Tensor], label: str, kind: str | None) -> list[Tensor]:
    """Return the label of each sample; for words those of first pieces."""
    labels = list(batch[label].cpu())
    if kind == "words":
        return [row[first] for row, first in zip(labels, first_pieces(batch[WORD_IDS]).cpu(), strict=True)]
    return labels


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
