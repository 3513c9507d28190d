"""Evaluate test samples: losses and scores of every objective, by task and by domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.data.labels import IGNORED, present
from surgeon.training.calls import Batch
from surgeon.training.detection import MOST, detection, flat_boxes
from surgeon.training.losses import bce, classes_second, huber, labelled_elements, masked, mse
from surgeon.training.measures import (
    Measures,
    confusion_of,
    of_boxes,
    of_confusion,
    of_counts,
    of_questions,
    of_ranking,
    of_values,
)
from surgeon.training.objectives import Target
from surgeon.training.packed_rows import pack, unpack
from surgeon.training.task_weights import FixedWeights

Further: TypeAlias = Mapping[str, Callable[[Tensor, Tensor], float]]
"""Metrics of the predictions and labels of all samples, by name."""
COLUMNS = ("loss", "accuracy", "mass", "elements", "nll")
"""What is recorded per sample and objective: its loss, the share of labels predicted correctly (NaN if undefined), the
weight of its loss, the number of its labels, and the sum of the negative log-likelihoods of its classes (NaN for other
labels)."""
WIDEST = 256
"""Up to this many predictions and labels per sample are kept; those of a segmentation network would fill the memory."""
SQUARE, MANY = 16, 256
"""For tokens and pixels, the confusion matrix per sample is kept for up to 16 classes, and for up to 256 the counts of
labels, predictions and correct predictions per class."""
PERPLEXITY = {"tokens": "perplexity", "masked_tokens": "pseudo_perplexity"}
"""The name of the exponential of the mean negative log-likelihood. A masked token is predicted from both sides, so its
number is not comparable with a perplexity (Salazar et al. 2020)."""
COUNTED = (*PERPLEXITY, "pixels")
"""Tasks with several classes per sample."""
ALL = "all"
"""The key of metrics over all test samples, beside those of each domain."""


def rows(targets: Sequence[Target], outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, list[int]]:
    """Return one row per sample: domain (or -1), then by objective :data:`COLUMNS` and those of :func:`_extra_columns`.

    Returns the rows, and the number of columns of each objective.
    """
    size = len(next(iter(batch.values())))
    device = next(iter(outputs.values())).device
    domain = batch["domain"].float() if "domain" in batch else torch.full((size,), -1.0, device=device)
    columns = [_row(target, outputs, batch) for target in targets]
    return torch.cat([domain[:, None], *columns], dim=1), [part.shape[1] for part in columns]


def _row(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    values, valid = target.losses(outputs, batch)
    nothing = torch.full_like(values, torch.nan)
    scores = target.scores(outputs, batch)
    fixed = torch.stack(
        [
            values.float().masked_fill(~valid, torch.nan),
            nothing if scores is None else scores.float(),
            target.mass(batch),
            _elements(target, batch),
            _nll(target, outputs, batch) if target.of_classes else nothing,
        ],
        dim=1,
    )
    return torch.cat([fixed, _extra_columns(target, outputs, batch)], dim=1)


def _elements(target: Target, batch: Batch) -> Tensor:
    """Count the labels of each sample; a vector of probabilities is one."""
    label = target.labels(batch)
    if target.loss is detection:
        return torch.ones(len(label), device=label.device)
    if target.of_classes and label.is_floating_point():
        return present(label).all(-1).float()
    return labelled_elements(label)


def _nll(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Sum the negative log-likelihood over a sample's labels, without smoothing and weights."""
    prediction, label = target.pair(outputs, batch)
    if label.is_floating_point():
        return F.cross_entropy(prediction.float(), label.nan_to_num().float(), reduction="none")
    logits = classes_second(prediction, label).float()
    values = F.cross_entropy(logits, label.long(), ignore_index=IGNORED, reduction="none")
    return values.reshape(len(label), -1).sum(1)


def task_of(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> str | None:
    """Return the kind of prediction: classes, (masked) tokens, pixels, questions, values or boxes; None for others."""
    label = batch[target.objective.label]
    if target.loss is detection:
        return "boxes"
    if target.of_classes:
        if label.ndim == 1 or label.is_floating_point():
            return "classes"
        if target.loss is masked:
            return "masked_tokens"
        return "tokens" if label.ndim == 2 else "pixels"
    if target.loss is bce:
        return "questions"
    return "values" if target.loss in (mse, huber) else None


def _extra_columns(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Return what metrics need per sample beside :data:`COLUMNS`; no columns if that would be too many."""
    prediction, label = target.pair(outputs, batch)
    size, task = len(label), task_of(target, outputs, batch)
    no_columns = prediction.new_zeros((size, 0), dtype=torch.float32)
    if task == "boxes":
        return flat_boxes(outputs, batch)
    if task in COUNTED:
        logits = classes_second(prediction, label)
        classes = logits.shape[1]
        if classes > MANY:
            return no_columns
        flat = logits.movedim(1, -1).reshape(size, -1, classes)
        tables = [confusion_of(flat[row], label[row].reshape(-1), classes) for row in range(size)]
        if classes > SQUARE:
            tables = [torch.stack([table.diagonal(), table.sum(1), table.sum(0)]) for table in tables]
        # the class count determines which of the two follows
        columns = torch.cat([torch.full((size, 1), classes), torch.stack(tables).reshape(size, -1)], dim=1)
        return columns.float().to(prediction.device)
    if max(prediction[:1].numel(), label[:1].numel()) > WIDEST:
        return no_columns
    if task is None:
        return pack(prediction, label) if target.kept else no_columns
    if task == "classes":
        whole = label.argmax(1).masked_fill(~present(label).all(-1), IGNORED) if label.is_floating_point() else label
        return torch.cat([_precise(prediction).reshape(size, -1), whole.float()[:, None]], dim=1)
    return torch.cat([_precise(prediction).reshape(size, -1), _precise(label).reshape(size, -1)], dim=1)


def _precise(values: Tensor) -> Tensor:
    """Convert to float32, but keep float64: differences of values far from 0 need its digits."""
    return values if values.dtype == torch.float64 else values.float()


def parts(table: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the columns of each objective."""
    return list(torch.split(table[:, 1:], list(sizes), dim=1))


def means(targets: Sequence[Target], table: Tensor, sizes: Sequence[int]) -> dict[str, float]:
    """Average ``OUTPUT_loss`` and, for classes and yes/no questions, ``OUTPUT_accuracy`` over labelled elements."""
    averages: dict[str, float] = {}
    for target, part in zip(targets, parts(table, sizes), strict=True):
        if target.loss is detection:
            precision = of_boxes(part[:, len(COLUMNS) :], MOST)["map"]
            averages |= {} if precision is None else {f"{target.objective.output}_map": precision}
        for quantity, value in zip(("loss", "accuracy"), _loss_and_accuracy(part), strict=True):
            if value is not None:
                averages[f"{target.objective.output}_{quantity}"] = value
    return averages


def total_loss(targets: Sequence[Target], table: Tensor, sizes: Sequence[int], weighing: FixedWeights) -> float:
    """Compute the weighted sum of the objectives' losses over the test samples."""
    total = torch.zeros(())
    for position, part in enumerate(parts(table, sizes)):
        loss, _ = _loss_and_accuracy(part)
        value = torch.tensor(0.0 if loss is None else loss)
        total = total + weighing.weigh(position, value, torch.tensor(loss is not None)).detach().cpu()
    return total.item()


def _loss_and_accuracy(part: Tensor) -> tuple[float | None, float | None]:
    """Compute the loss (NaN if that of a labelled sample is NaN) and the accuracy; None if no sample has a label."""
    part = part[part[:, 3] > 0].double()
    if not len(part):
        return None, None
    loss, accuracy, mass, elements = part[:, :4].T
    right = None if accuracy.isnan().any() else ((accuracy * elements).sum() / elements.sum()).item()
    return ((loss * mass).sum() / mass.sum()).item() if mass.sum() else 0.0, right


def by_task_and_domain(
    targets: Sequence[Target],
    tasks: Sequence[str | None],
    table: Tensor,
    sizes: Sequence[int],
    domains: Sequence[str],
    names: Mapping[str, Sequence[str]] | None = None,
    further: Mapping[str, Further] | None = None,
) -> dict[str, dict[str, Measures]]:
    """Compute the metrics of every objective's output, over all test samples and over each domain.

    Each has ``loss`` and ``samples``, the number of samples with labels, beside the metrics of its task in
    :mod:`surgeon.training.measures`. An objective without labels in a domain has no metrics there.

    Args:
        targets: The objectives.
        tasks: The kind of each, from :func:`task_of`.
        table: The rows of all samples.
        sizes: The number of columns of each objective.
        domains: The names of the domains.
        names: The names of classes by label column.
        further: Metrics to add, by output.
    """
    metrics: dict[str, dict[str, Measures]] = {}
    for target, task, part in zip(targets, tasks, parts(table, sizes), strict=True):
        class_names = (names or {}).get(target.objective.label)
        added = (further or {}).get(target.objective.output, {})
        measures: dict[str, Measures] = {}
        for number, domain in [(None, ALL), *enumerate(domains)]:
            chosen = part if number is None else part[table[:, 0] == number]
            chosen = chosen[chosen[:, 3] > 0]
            if len(chosen):
                measures[domain] = _measures(task, chosen, class_names, added)
        metrics[target.objective.output] = measures
    return metrics


def _measures(task: str | None, part: Tensor, names: Sequence[str] | None, further: Further) -> Measures:
    loss, accuracy = _loss_and_accuracy(part)
    metrics: dict[str, Any] = {"samples": len(part), "loss": loss}
    if accuracy is not None:
        metrics["accuracy"] = accuracy
    columns = part[:, len(COLUMNS) :]
    if task == "boxes":
        return metrics | of_boxes(columns.float(), MOST, names)
    if task in COUNTED:
        if task in PERPLEXITY and not names:  # tags have names, a vocabulary has none
            metrics[PERPLEXITY[task]] = (part[:, 4].double().sum() / part[:, 3].double().sum()).exp().item()
        if columns.shape[1]:
            classes, counts = int(columns[0, 0]), columns[:, 1:].double().sum(0)
            if classes <= SQUARE:
                metrics |= of_confusion(counts.reshape(classes, classes), names, iou=task == "pixels")
            else:
                metrics |= of_counts(counts.reshape(3, classes), names, iou=task == "pixels")
    elif task == "classes" and columns.shape[1]:
        logits, labels = columns[:, :-1], columns[:, -1].long()
        metrics |= of_confusion(confusion_of(logits, labels, logits.shape[1]), names) | of_ranking(logits, labels)
        metrics |= {name: metric(logits.float(), labels) for name, metric in further.items()}
    elif task is None and columns.shape[1]:
        prediction, label = unpack(columns.float())
        metrics |= {name: metric(prediction, label) for name, metric in further.items()}
    elif columns.shape[1]:
        half = columns.shape[1] // 2
        measure = of_questions if task == "questions" else of_values
        metrics |= measure(columns[:, :half], columns[:, half:], names)
        narrow = columns.float()
        metrics |= {name: metric(narrow[:, :half], narrow[:, half:]) for name, metric in further.items()}
    return metrics
