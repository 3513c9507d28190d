"""What is measured on the test samples: losses and scores of every objective, by task and by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from surgeon.training.losses import cross_entropy, huber, mse
from surgeon.training.objectives import Batch, Target

COLUMNS = ("loss", "accuracy", "predicted", "label")
"""What is noted of a sample for each objective; NaN where it has none."""
ALL = "all"
"""What measures over all test samples go by, beside those of each domain."""


def rows(targets: Sequence[Target], outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """A row for each sample, ``(batch, 1 + 4 x objectives)``: its domain (or -1), then :data:`COLUMNS` by objective.

    Whole predictions are not kept: those of a segmentation network would fill the memory.
    """
    size = len(next(iter(batch.values())))
    device = next(iter(outputs.values())).device
    domain = batch["domain"].float() if "domain" in batch else torch.full((size,), -1.0, device=device)
    columns = [domain]
    for target in targets:
        values, valid = target.losses(outputs, batch)
        nothing = torch.full_like(values, torch.nan)
        scores = target.scores(outputs, batch)
        predicted, label = _pair(target, outputs, batch) or (nothing, nothing)
        for column in (values, nothing if scores is None else scores, predicted, label):
            columns.append(column.float().masked_fill(~valid, torch.nan))
    return torch.stack(columns, dim=1)


def _pair(target: Target, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor] | None:
    """The one prediction of each sample and its label; None where a sample has several."""
    prediction, label = outputs[target.objective.output], batch[target.objective.label]
    if label.ndim != 1:
        return None
    if target.loss is cross_entropy:
        return prediction.argmax(1), label
    if target.loss in (mse, huber):
        return prediction.reshape(label.shape), label
    return None


def means(targets: Sequence[Target], table: Tensor) -> dict[str, float]:
    """``OUTPUT_loss`` and, for classes and yes/no questions, ``OUTPUT_accuracy``: means over the labelled samples."""
    found = {}
    for position, target in enumerate(targets):
        for offset, what in enumerate(COLUMNS[:2]):
            column = table[:, 1 + len(COLUMNS) * position + offset]
            if not column.isnan().all():
                found[f"{target.objective.output}_{what}"] = column.nanmean().item()
    return found


def by_task_and_domain(
    targets: Sequence[Target], table: Tensor, domains: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """The measures of every objective's output, over all test samples and over those of each domain.

    Of classes: ``accuracy`` and ``f1`` (its mean over the classes that occur); of yes/no questions ``accuracy``; of
    values ``mae`` and ``r2``; of all ``loss`` and ``samples``, the number that have a label. An objective without a
    label in a domain has no measures there.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for position, target in enumerate(targets):
        start = 1 + len(COLUMNS) * position
        measures: dict[str, dict[str, float]] = {}
        for number, domain in [(None, ALL), *enumerate(domains)]:
            chosen = table if number is None else table[table[:, 0] == number]
            part = chosen[:, start : start + len(COLUMNS)]
            part = part[~part[:, 0].isnan()]
            if len(part):
                measures[domain] = _measures(target, part)
        found[target.objective.output] = measures
    return found


def _measures(target: Target, part: Tensor) -> dict[str, float]:
    from torchmetrics.functional import mean_absolute_error, r2_score
    from torchmetrics.functional.classification import multiclass_f1_score

    losses, scores, predicted, label = part.T
    found = {"samples": len(part), "loss": losses.mean().item()}
    if not scores.isnan().any():
        found["accuracy"] = scores.mean().item()
    if predicted.isnan().any():
        return found
    if target.loss is cross_entropy:
        classes = int(torch.maximum(predicted, label).max()) + 1
        f1 = multiclass_f1_score(predicted.long(), label.long(), max(2, classes), average="macro")
        found["f1"] = f1.item()
    else:
        found["mae"] = mean_absolute_error(predicted, label).item()
        if len(part) > 1:
            found["r2"] = r2_score(predicted, label).item()
    return found
