"""What a network says of samples: a row for each, probabilities where the output is of classes or of questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from surgeon.interfaces.operation import Operation, asked_of_training
from surgeon.interfaces.record import record_of
from surgeon.interfaces.training import Objective
from surgeon.training.class_names import adopt_padding
from surgeon.training.fitting import outputs_of
from surgeon.training.language import language_of
from surgeon.training.objectives import MAIN, Call
from surgeon.training.penalties import in_eval_mode
from surgeon.training.places import CLASSES, DENSE, classes_of_places, first_pieces, kind_of_places, shares_of

BATCH = 64
COLUMNS = ("sample", "part", "class", "label")
"""Columns of a table beside the probabilities."""
PROBLEMS = {"regression": "mse", "multi_label_classification": "bce"}
"""The losses of transformers' problem types; cross-entropy of others."""


@dataclass(frozen=True)
class Predictions:
    """What one output says of samples.

    Attributes:
        output: Its name.
        kind: ``class`` (probabilities that add up to 1), ``yes`` (one probability for each question), ``value``, or
            ``words`` and ``pixels`` (the share of a sample's words or pixels that is of each class).
        names: What each column of ``values`` is called: the classes, questions or values by name.
        values: ``(samples, columns)``.
        samples: What each sample is called: its file, or the row of its table.
        labels: What the data say of each sample, by name; None where a sample has no label, or all have none.
        parts: The split that each sample belongs to; empty where there are none.
        notes: What was read, and what was left out.
        places: Of words and pixels: the class number of each, a tensor ``(words,)`` or ``(height, width)`` a sample.
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
        """The class of each sample by name; of questions the names of those answered with yes; of values None.

        Of words, the class of each; of pixels, those that a pixel is of, the most frequent first.
        """
        if self.kind == "words":
            return [[self.names[each] for each in place.tolist()] for place in self.places]
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
        """A mapping for each sample: ``sample``, ``part`` where there are parts, ``class`` and ``probabilities``
        by name (of questions a list of classes), or ``values`` by name, and ``label`` where the data have labels."""
        made = []
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
            made.append(row)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "output": self.output,
            "kind": self.kind,
            "names": list(self.names),
            "rows": self.rows,
            "notes": list(self.notes),
        }

    def to_table(self) -> list[list[str]]:
        """A header, and a row for each sample with a column for each name, as for a CSV file."""
        taken = COLUMNS
        headings = [f"{name} (value)" if name in taken else name for name in self.names]
        has_class, has_label = self.kind != "value", self.labels is not None
        header = ["sample", *(["part"] if self.parts else []), *(["class"] if has_class else []), *headings]
        table = [header + (["label"] if has_label else [])]
        for number, (values, chosen) in enumerate(zip(self.values.tolist(), self.classes, strict=True)):
            row = [self.samples[number], *([self.parts[number]] if self.parts else [])]
            row += [shown(chosen)] if has_class else []
            row += [f"{value:.6g}" for value in values]
            table.append(row + ([shown(self.labels[number])] if self.labels is not None else []))
        return table


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
        samples: What to predict from.
        network: The names of its classes.
        operations: Those that the network has been through; what they ask of training says what an output means.
        output: Which output; the network's own prediction if left out.
        batch_size: How many samples are computed at a time.

    Raises:
        TrainingError: The data and the network do not go together, or there is no such output of one row a sample.
    """
    values: list[Tensor] = []
    places: list[Tensor] = []
    labels: list[Any] = []
    chosen = output
    objective: Objective | None = None
    kind: str | None = None
    notes: list[str] = []
    for each in samples:
        notes += each.notes
        for outputs, batch, start in run_batches(model, each, batch_size):
            if objective is None or chosen is None:
                chosen = main_output(outputs) if output is None else output
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
            if label in each.shown:
                labels += each.shown[label][start : start + len(values[-1])]
            elif label in batch and label not in each.inputs:
                names = each.classes.get(label) or network.head(label).names
                labels += [_named(value, names, objective) for value in _labels(batch, label, kind)]
            else:
                labels += [None] * len(values[-1])
    if objective is None or chosen is None:
        raise TrainingError("there are no samples to predict from")
    what, names, made = _meaning(torch.cat(values), objective, network, samples, kind)
    return Predictions(
        chosen,
        what,
        names,
        made,
        tuple(name for each in samples for name in each.names),
        labels if any(label is not None for label in labels) else None,
        tuple(part for each in samples for part in (each.parts or [""] * len(each)))
        if any(each.parts for each in samples)
        else (),
        tuple(dict.fromkeys(notes)),
        tuple(places),
    )


def run_batches(model: nn.Module, samples: Samples, batch_size: int) -> Any:
    """Yield the outputs by name, the batch, and the number of its first sample, in eval mode and without gradients."""
    adopt_padding(model, samples.used)
    call = Call.of(model, samples.inputs)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for start in range(0, len(samples), batch_size):
        some = several(samples.rows, range(start, min(start + batch_size, len(samples))))
        batch = {name: column.to(device) for name, column in samples.collate(some).items()}
        with torch.no_grad(), in_eval_mode(model):
            outputs = outputs_of(model, call, batch)
        yield outputs, batch, start


def main_output(outputs: dict[str, Tensor]) -> str:
    """The name of the network's own prediction."""
    return next((name for name in MAIN if name in outputs), next(iter(outputs)))


def known_objectives(model: nn.Module, operations: Sequence[Operation]) -> list[Objective]:
    """What the network was trained by, by its record, and what its operations ask for."""
    record = record_of(model)
    entry = record.training[-1] if record is not None and record.training else {}
    given = entry.get("objectives") or entry.get("settings", {}).get("objectives") or ()
    all_of_them = [*map(Objective.model_validate, given), *asked_of_training(operations).objectives]
    return list({(each.output, each.loss, each.label): each for each in reversed(all_of_them)}.values())[::-1]


def objective_of(model: nn.Module, operations: Sequence[Operation], output: str, values: Tensor) -> Objective:
    """The objective that an output was trained by, or would be: what it means, and the column of its labels."""
    known = [each for each in known_objectives(model, operations) if each.output == output]
    if known:
        return next((each for each in known if each.weight), known[0])
    problem = getattr(getattr(model, "config", None), "problem_type", None) if output in MAIN else None
    loss = PROBLEMS.get(str(problem), CLASS_LOSS)
    if loss == CLASS_LOSS and values.ndim == 2 and values.shape[1] == 1:
        loss = "bce"  # of a single logit, a softmax would always be 1
    elif loss == CLASS_LOSS and values.ndim == 3 and (language := language_of(model)) in (NEXT_TOKEN, MASKED):
        loss = str(language)
    return Objective(output=output, loss=loss)


def shown(value: Any) -> str:
    """A label or a class as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _check_there(outputs: dict[str, Tensor], chosen: str) -> None:
    if chosen not in outputs:
        raise TrainingError(
            f"no output {chosen!r} (there are: {', '.join(outputs)})", hint=suggest(chosen, outputs) or None
        )


def _check_output(
    outputs: dict[str, Tensor], chosen: str, batch: Mapping[str, Tensor], objective: Objective
) -> str | None:
    """Whether an output is of words or of pixels; None of one row of numbers a sample."""
    values = outputs[chosen]
    if objective.loss == CLASS_LOSS and values.is_floating_point() and (kind := kind_of_places(values, batch)):
        return kind
    if values.ndim > 2 or not values.is_floating_point():
        raise TrainingError(
            f"the output {chosen!r} has shape {tuple(outputs[chosen].shape)}: no row of numbers for each sample",
            hint="classes of words are predicted of a table whose texts are lists of words; surgeon evaluate measures "
            "outputs of tokens too",
        )
    return None


def _labels(batch: Mapping[str, Tensor], label: str, kind: str | None) -> list[Tensor]:
    """The label of each sample; of words those of first pieces."""
    labels = list(batch[label].cpu())
    if kind == "words":
        return [row[first] for row, first in zip(labels, first_pieces(batch[WORD_IDS]).cpu(), strict=True)]
    return labels


def _meaning(
    raw: Tensor, objective: Objective, network: Network, samples: Sequence[Samples], kind: str | None
) -> tuple[str, tuple[str, ...], Tensor]:
    """The kind, the names of the columns and their values."""
    count = raw.shape[1]
    named = [network.head(objective.label).names, *(each.classes.get(objective.label, ()) for each in samples)]
    loss = "bce" if objective.loss == CLASS_LOSS and count == 1 else objective.loss
    names = next((tuple(map(str, given)) for given in named if len(given) == count), None)
    if kind is not None:
        return kind, names or tuple(map(str, range(count))), raw
    if loss == CLASS_LOSS:
        return "class", names or tuple(map(str, range(count))), raw.softmax(1)
    if loss == "bce":
        yes = raw.sigmoid()
        pair = next((tuple(map(str, given)) for given in named if len(given) == 2), None)
        if count == 1 and pair is not None:
            return "class", pair, torch.cat([1 - yes, yes], dim=1)
        return "yes", names or (("yes",) if count == 1 else tuple(map(str, range(count)))), yes
    return "value", names or (("value",) if count == 1 else tuple(map(str, range(count)))), raw


def _named(value: Tensor, names: Sequence[str], objective: Objective) -> Any:
    """A label by name; None where it is missing."""
    if value.ndim > 1 and objective.loss == CLASS_LOSS:
        return None  # of pixels
    if value.ndim:
        if objective.loss == CLASS_LOSS and not value.is_floating_point():
            return [_named(each, names, objective) for each in value]
        flat = value.reshape(-1).tolist()
        if objective.loss == "bce" and len(names) == len(flat):
            return [name for name, each in zip(names, flat, strict=True) if each > 0.5]
        return flat
    number = value.item()
    if number == IGNORED or number != number:
        return None
    by_name = objective.loss not in NUMBER_LOSSES or (objective.loss == "bce" and len(names) == 2)
    if by_name and number == int(number) and 0 <= number < len(names):
        return names[int(number)]
    return number
