"""Measure a network on samples with labels: every output that has a label, by the measures of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import IGNORED
from surgeon.data.network import Network
from surgeon.data.whole import Samples
from surgeon.errors import TrainingError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.training import Objective
from surgeon.training.language import is_language_model
from surgeon.training.losses import Loss, bce, cross_entropy
from surgeon.training.measures import Measures
from surgeon.training.metrics import ALL, by_task_and_domain, rows, task_of
from surgeon.training.objectives import Batch, Target, prepare
from surgeon.training.predicting import BATCH, known_objectives, main_output, objective_of, run_batches


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on samples.

    Attributes:
        samples: How many there were.
        measures: By output, then by domain (``all`` for all samples): ``accuracy``, ``balanced_accuracy``,
            ``per_class``, ``confusion`` (the right classes in rows) of classes; ``auroc``, ``ap`` and ``per_label``
            of questions; ``r2``, ``mae``, ``rmse`` of values; ``perplexity`` of tokens.
        names: The names of the classes, questions or values by output.
        notes: What was read, and what was left out.
    """

    samples: int
    measures: Mapping[str, Mapping[str, Measures]]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Measures:
        """The measures of the first output over all samples: the network's own prediction where it is measured."""
        return next(iter(self.measures.values())).get(ALL, {})

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "samples": self.samples,
            "measures": {output: dict(by_domain) for output, by_domain in self.measures.items()},
            "names": {output: list(names) for output, names in self.names.items()},
            "notes": list(self.notes),
        }


def evaluate_samples(
    model: nn.Module,
    samples: Sequence[Samples],
    network: Network,
    operations: Sequence[Operation],
    losses: Mapping[str, Loss],
    *,
    batch_size: int = BATCH,
) -> Evaluation:
    """Run ``model`` over samples and compare its outputs with their labels.

    Args:
        model: The network.
        samples: What to measure on.
        network: The names of its classes.
        operations: Those that the network has been through.
        losses: The losses by name.
        batch_size: How many samples are computed at a time.

    Raises:
        TrainingError: No output has a label, or labels and outputs do not go together.
    """
    targets: list[Target] = []
    tasks: list[str | None] = []
    sizes: list[int] = []
    made: list[Tensor] = []
    for each in samples:
        for outputs, given, _ in run_batches(model, each, batch_size):
            batch = _with_next_tokens(model, given)
            if not targets:
                wanted = _objectives(model, operations, outputs, batch)
                targets = prepare(wanted, losses, outputs, batch, {})
                tasks = [task_of(target, outputs, batch) for target in targets]
            for target in targets:
                _check_label(target, outputs, batch)
            found, sizes = rows(targets, outputs, batch)
            made.append(found.cpu())
    if not made:
        raise TrainingError("there are no samples to measure on")
    named = {label: names for each in samples for label, names in each.classes.items()}
    named |= {label: head.names for label, head in network.heads.items() if head.names}
    table = torch.cat(made)
    domains = samples[0].domains
    measured = by_task_and_domain(targets, tasks, table, sizes, domains, named)
    if not any(measured.values()):
        raise TrainingError("no sample has a label, so that there is nothing to measure by")
    notes = tuple(dict.fromkeys(note for each in samples for note in each.notes))
    by_output = {each.objective.output: named.get(each.objective.label, ()) for each in targets}
    return Evaluation(len(table), measured, by_output, notes)


def _objectives(
    model: nn.Module, operations: Sequence[Operation], outputs: dict[str, Tensor], batch: Batch
) -> list[Objective]:
    """What is measured: the network's own prediction first, then whatever else was trained and has a label here."""
    main = main_output(outputs)
    known = known_objectives(model, operations)
    wanted = [objective_of(model, operations, main, outputs[main])]
    wanted += [each for each in known if each.output != main]
    there = [each for each in wanted if each.output in outputs and each.label in batch]
    if not there:
        labels = ", ".join(dict.fromkeys(each.label for each in wanted))
        raise TrainingError(f"the data have no labels to measure by: {labels}", hint="surgeon predict needs no labels")
    # weighted and smoothed losses are for training; outputs need no gradient where the weight is 0
    return [each.model_copy(update={"weight": 0.0, "options": {}, "loss": _loss(each, outputs)}) for each in there]


def _loss(objective: Objective, outputs: Mapping[str, Tensor]) -> str:
    """The loss; of a single logit that of a question."""
    output = outputs[objective.output]
    lone = objective.loss == "cross_entropy" and output.ndim == 2 and output.shape[1] == 1
    return "bce" if lone else objective.loss


def _check_label(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> None:
    label, output = batch[target.objective.label], outputs[target.objective.output]
    if target.loss is not cross_entropy or label.is_floating_point() or output.ndim != 2:
        if target.loss is bce and bool(((label < 0) | (label > 1)).logical_and(label != IGNORED).any()):
            raise TrainingError(f"the labels {target.objective.label!r} are of questions, and are not all from 0 to 1")
        return
    odd = (label != IGNORED) & ((label < 0) | (label >= output.shape[1]))
    if odd.any():
        raise TrainingError(
            f"the output {target.objective.output!r} has {output.shape[1]} classes, and a label "
            f"{target.objective.label!r} has the number {int(label[odd][0])}",
            hint="classes are numbered from 0 on; -100 marks a missing label",
        )


def _with_next_tokens(model: nn.Module, batch: Batch) -> Batch:
    """A batch of texts with its own tokens as labels, where a language model has no others."""
    if "labels" in batch or "input_ids" not in batch or not is_language_model(model):
        return batch
    tokens = batch["input_ids"]
    mask = batch.get("attention_mask")
    return {**batch, "labels": tokens if mask is None else tokens.masked_fill(mask == 0, IGNORED)}
