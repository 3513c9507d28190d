"""Evaluate a network on labelled samples: every output with a label, by the metrics of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from surgeon.data.labels import IGNORED
from surgeon.data.network import Network
from surgeon.data.whole import Samples
from surgeon.errors import TrainingError
from surgeon.interfaces.html_table import html_report
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.training import Objective
from surgeon.training.calls import Batch
from surgeon.training.detection import DETECTIONS
from surgeon.training.direction import refuse_seen_tokens
from surgeon.training.further_metrics import Further, by_output, keeping
from surgeon.training.language import is_language_model
from surgeon.training.losses import Loss, bce, cross_entropy
from surgeon.training.measure_tables import class_tables, domain_table
from surgeon.training.measures import Measures
from surgeon.training.metrics import ALL, COLUMNS, by_task_and_domain, rows, task_of
from surgeon.training.objectives import Target, call_of, prepare
from surgeon.training.packed_rows import refuse_other_sizes
from surgeon.training.sample_predictions import BATCH, known_objectives, main_output, objective_of, run_batches


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a network on samples.

    Attributes:
        samples: The number of samples.
        measures: By output, then by domain (``all`` for all samples): for classes ``accuracy``, ``balanced_accuracy``,
            ``per_class``, ``confusion`` (true classes in rows); for yes/no questions ``auroc``, ``ap`` and
            ``per_label``; for values ``r2``, ``mae``, ``rmse``; for tokens ``perplexity``; for boxes ``map``,
            ``map_50``, ``map_75``, ``mar`` and ``per_class``.
        names: The names of the classes, questions or values by output.
        notes: Remarks on what was read and left out.
    """

    samples: int
    measures: Mapping[str, Mapping[str, Measures]]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> Measures:
        """The metrics of the first output over all samples, which is the main output if it has labels."""
        return next(iter(self.measures.values())).get(ALL, {})

    def to_dict(self) -> dict[str, Any]:
        """Convert the evaluation to JSON-able data."""
        return {
            "samples": self.samples,
            "measures": {output: dict(by_domain) for output, by_domain in self.measures.items()},
            "names": {output: list(names) for output, names in self.names.items()},
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        """Show the metrics of each output and domain, each class and the confusion matrix in a notebook."""
        parts: list[str] = []
        for output, domains in self.measures.items():
            parts.append(domain_table(output, domains))
            parts += class_tables(domains.get(ALL, {}), self.names.get(output, ()))
        return html_report(f"evaluated on {self.samples:,} samples", *parts, notes=self.notes)


def evaluate_samples(
    model: nn.Module,
    samples: Sequence[Samples],
    network: Network,
    operations: Sequence[Operation],
    losses: Mapping[str, Loss],
    *,
    batch_size: int = BATCH,
    further: Sequence[Further] = (),
) -> Evaluation:
    """Run ``model`` over samples and compare its outputs with their labels.

    Args:
        model: The network.
        samples: The samples.
        network: The names of its classes.
        operations: The operations that were applied to the network.
        losses: The losses by name.
        batch_size: Samples per batch.
        further: Metrics to add.

    Raises:
        TrainingError: No output has a label, or labels do not fit the outputs.
        PluginError: A metric of a plugin failed.
    """
    targets: list[Target] = []
    tasks: list[str | None] = []
    sizes: list[int] = []
    tables: list[Tensor] = []
    for part in samples:
        for outputs, inputs, _ in run_batches(model, part, batch_size):
            batch = _with_next_tokens(model, inputs)
            if not targets:
                targets = prepare(_objectives(model, operations, outputs, batch), losses, outputs, batch, {})
                tasks = [task_of(target, outputs, batch) for target in targets]
                targets = keeping(targets, tasks, further)
                refuse_seen_tokens(model, call_of(model, part.inputs), batch, outputs, targets)
            for target in targets:
                _check_label(target, outputs, batch)
            table_rows, now = rows(targets, outputs, batch)
            refuse_other_sizes(targets, sizes, now)
            sizes = now
            tables.append(table_rows.cpu())
    if not tables:
        raise TrainingError("there are no samples to evaluate on")
    named = {label: names for part in samples for label, names in part.classes.items()}
    named |= {label: head.names for label, head in network.heads.items() if head.names}
    widest = max(part.shape[1] for part in tables)  # sources of boxes differ in how many a picture has
    if targets[0].objective.output == DETECTIONS:
        tables, sizes = [pad(part, (0, widest - part.shape[1]), value=IGNORED) for part in tables], [widest - 1]
    table = torch.cat(tables)
    domains = samples[0].domains
    outputs_of = [target.objective.output for target in targets]
    widths = {output: size - len(COLUMNS) for output, size in zip(outputs_of, sizes, strict=True)}
    added = by_output(further, dict(zip(outputs_of, tasks, strict=True)), widths)
    measured = by_task_and_domain(targets, tasks, table, sizes, domains, named, added)
    if not any(measured.values()):
        raise TrainingError("no sample has a label")
    notes = tuple(dict.fromkeys(note for part in samples for note in part.notes))
    names = {t.objective.output: named.get(t.objective.label, ()) for t in targets}
    return Evaluation(len(table), measured, names, notes)


def _objectives(
    model: nn.Module, operations: Sequence[Operation], outputs: dict[str, Tensor], batch: Batch
) -> list[Objective]:
    """Return what to evaluate: the main output first, then other trained outputs with labels in the data."""
    trained = known_objectives(model, operations)
    main = main_output(outputs, [objective.output for objective in trained if objective.weight])
    candidates = [objective_of(model, operations, main, outputs[main])]
    candidates += [objective for objective in trained if objective.output != main]
    available = [o for o in candidates if o.output in outputs and o.label in batch]
    if not available:
        labels = ", ".join(dict.fromkeys(objective.label for objective in candidates))
        raise TrainingError(f"the data have none of the labels {labels}", hint="surgeon predict needs no labels")
    # weighted and smoothed losses are for training only; with weight 0, outputs need no gradient
    return [o.model_copy(update={"weight": 0.0, "options": {}, "loss": _loss(o, outputs)}) for o in available]


def _loss(objective: Objective, outputs: Mapping[str, Tensor]) -> str:
    """Return the loss; for a single logit, that of a yes/no question."""
    output = outputs[objective.output]
    lone = objective.loss == "cross_entropy" and output.ndim == 2 and output.shape[1] == 1
    return "bce" if lone else objective.loss


def _check_label(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> None:
    label, output = batch[target.objective.label], outputs[target.objective.output]
    if target.loss is not cross_entropy or label.is_floating_point() or output.ndim != 2:
        if target.loss is bce and bool(((label < 0) | (label > 1)).logical_and(label != IGNORED).any()):
            raise TrainingError(
                f"the labels {target.objective.label!r} are for yes/no questions, but not all are from 0 to 1"
            )
        return
    outside = (label != IGNORED) & ((label < 0) | (label >= output.shape[1]))
    if outside.any():
        raise TrainingError(
            f"the output {target.objective.output!r} has {output.shape[1]} classes, and a label "
            f"{target.objective.label!r} is {int(label[outside][0])}",
            hint="classes are numbered from 0 on; -100 marks a missing label",
        )


def _with_next_tokens(model: nn.Module, batch: Batch) -> Batch:
    """Add a text's own tokens as labels, for a language model without other labels."""
    if "labels" in batch or "input_ids" not in batch or not is_language_model(model):
        return batch
    tokens = batch["input_ids"]
    mask = batch.get("attention_mask")
    return {**batch, "labels": tokens if mask is None else tokens.masked_fill(mask == 0, IGNORED)}
