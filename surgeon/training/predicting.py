"""What a network says of samples: a row for each, probabilities where the output is of classes or of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.operation import Operation, asked_of_training
from surgeon.interfaces.record import record_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.nn.zero_shot import ZeroShotHead
from surgeon.training.fitting import first_outputs
from surgeon.training.objectives import MAIN, Call
from surgeon.training.penalties import in_eval_mode

BATCH = 64


@dataclass(frozen=True)
class Predictions:
    """What one output says.

    Attributes:
        output: Its name.
        kind: ``class`` (probabilities that add up to 1), ``yes`` (one probability for each question) or ``value``.
        names: What each column is called.
        values: ``(samples, columns)``.
        labels: The data's label of each sample as a number, where it has one; None where the data have none.
    """

    output: str
    kind: str
    names: tuple[str, ...]
    values: Tensor
    labels: list[float | None] | None

    @property
    def header(self) -> list[str]:
        """The names of a table's columns."""
        own = ["class"] if self.kind == "class" else []
        return ["sample", *own, *self.names, *(["label"] if self.labels is not None else [])]

    def rows(self) -> list[list[str]]:
        """A row for each sample, as the header says."""
        best = self.values.argmax(1).tolist() if self.kind == "class" else []
        rows = []
        for number, values in enumerate(self.values.tolist()):
            own = [self.names[best[number]]] if best else []
            label = [] if self.labels is None else [_shown(self.labels[number])]
            rows.append([str(number), *own, *(f"{value:.6g}" for value in values), *label])
        return rows


def predict(
    model: nn.Module, splits: Splits, operations: Sequence[Operation], *, part: str = "test", output: str | None = None
) -> Predictions:
    """Run ``model`` over samples.

    Args:
        model: The network.
        splits: The data.
        operations: Those that the network has been through; what they ask of training says what an output means.
        part: ``test`` or ``train``.
        output: Which output; the network's own prediction if left out.

    Raises:
        TrainingError: The data and the network do not go together, or there is no such output of one row a sample.
    """
    outputs, _ = first_outputs(model, splits)
    own = next((name for name in MAIN if name in outputs), next(iter(outputs)))
    chosen = own if output is None else output
    if chosen not in outputs:
        raise TrainingError(
            f"no output {chosen!r} (there are: {', '.join(outputs)})", hint=suggest(chosen, outputs) or None
        )
    if outputs[chosen].ndim > 2 or not outputs[chosen].is_floating_point():
        raise TrainingError(
            f"the output {chosen!r} has shape {tuple(outputs[chosen].shape)}: no row of numbers for each sample"
        )
    objective = _objective(model, operations, chosen)
    call, device = Call.of(model, splits.inputs), next(model.parameters()).device
    samples = splits.test if part == "test" else splits.train
    values: list[Tensor] = []
    labels: list[float | None] = []
    with torch.no_grad(), in_eval_mode(model):
        size = len(samples)  # type: ignore[arg-type]
        for start in range(0, size, BATCH):
            batch = splits.collate([samples[row] for row in range(start, min(start + BATCH, size))])
            found = call(model, {name: column.to(device) for name, column in batch.items()})[chosen]
            values.append(found.float().cpu().reshape(len(found), -1))
            label = batch.get(objective.label)
            labels += [_number(each) for each in label] if label is not None and label.ndim == 1 else []
    raw = torch.cat(values)
    kind = {"cross_entropy": "class", "bce": "yes"}.get(objective.loss, "value")
    made = raw.softmax(1) if kind == "class" else raw.sigmoid() if kind == "yes" else raw
    names = _names(model, operations, chosen, raw.shape[1])
    return Predictions(chosen, kind, names, made, labels if len(labels) == len(raw) else None)


def _objective(model: nn.Module, operations: Sequence[Operation], output: str) -> Objective:
    """The objective that an output was trained by, or would be: what it means, and the column of its labels."""
    record = record_of(model)
    settings = record.training[-1]["settings"] if record and record.training else {}
    given = [Objective.model_validate(each) for each in settings.get("objectives") or ()]
    known = [each for each in [*given, *asked_of_training(operations).objectives] if each.output == output]
    return next((each for each in known if each.weight), known[0] if known else Objective(output=output))


def _names(model: nn.Module, operations: Sequence[Operation], output: str, count: int) -> tuple[str, ...]:
    heads = [module for name, module in model.named_modules() if name == f"grafts.{output}.head"]
    if heads and isinstance(heads[0], ZeroShotHead):
        return tuple(heads[0].names)
    for operation in reversed(operations):
        task = getattr(operation, "tasks", {}).get(output)
        classes = task.classes if task is not None else getattr(operation, "classes", None) if output in MAIN else None
        if isinstance(classes, list) and len(classes) == count:
            return tuple(map(str, classes))
    told = getattr(getattr(model, "config", None), "id2label", None) if output in MAIN else None
    if isinstance(told, dict) and len(told) == count:
        return tuple(str(told[number]) for number in sorted(told))
    return tuple(map(str, range(count)))


def _number(label: Tensor) -> float | None:
    value = label.item()
    return None if value in (-100, None) or value != value else value


def _shown(label: float | None) -> str:
    return "" if label is None else f"{label:.6g}"
