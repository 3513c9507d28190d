"""Compute metrics with torchmetrics and scikit-learn: of classes, tokens and pixels, yes/no questions, and values.

Numbers are added up in float64, since float32 loses the differences between values far from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from surgeon.data.labels import present

Measures: TypeAlias = dict[str, Any]
"""Metrics by name; ``per_class`` (``per_label``, ``per_value``) has more by class, ``confusion`` a matrix."""

MOST = 100
"""The most classes for the confusion matrix and per-class metrics."""


def confusion_of(outputs: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Count predictions: true classes in rows, predicted classes in columns, ``(classes, classes)``, from logits."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    valid = present(targets)
    predicted, labels = outputs.argmax(1)[valid], targets[valid].long()
    if classes == 1:
        return torch.full((1, 1), len(labels), dtype=torch.long)
    matrix: Tensor = multiclass_confusion_matrix(predicted, labels, classes)
    return matrix.cpu()


def of_confusion(matrix: Tensor, names: Sequence[str] | None = None, *, iou: bool = False) -> Measures:
    """Compute metrics from a confusion matrix ``(classes, classes)`` with true classes in rows.

    Returns:
        The metrics of :func:`of_counts`, and ``confusion`` for up to :data:`MOST` classes.
    """
    metrics = of_counts(torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]), names, iou=iou)
    if metrics and len(matrix) <= MOST:
        metrics["confusion"] = matrix.long().tolist()
    return metrics


def of_counts(counts: Tensor, names: Sequence[str] | None = None, *, iou: bool = False) -> Measures:
    """Compute metrics from how often each class is predicted correctly, is a label and is predicted, ``(3, classes)``.

    Args:
        counts: The counts.
        names: The names of the classes.
        iou: Whether to add the intersection over union, for pixels.

    Returns:
        ``accuracy``, ``balanced_accuracy`` (the mean recall of classes with labels), ``f1`` (its mean over classes with
        labels or predictions), with ``iou`` also ``miou`` (its mean over the same classes); and ``per_class`` for up to
        :data:`MOST` classes (``samples``, ``accuracy``, ``precision``, ``f1``, ``iou``).
    """
    right, labelled, predicted = counts.double()
    recall, precision = right / labelled, right / predicted
    f1 = 2 * right / (labelled + predicted)
    union = right / (labelled + predicted - right)
    has_label, total = labelled > 0, labelled.sum()
    if not total:
        return {}
    occurring = labelled + predicted > 0
    metrics: Measures = {
        "accuracy": (right.sum() / total).item(),
        "balanced_accuracy": recall[has_label].mean().item(),
        "f1": f1[occurring].mean().item(),
    }
    if iou:
        metrics["miou"] = union[occurring].mean().item()
    if counts.shape[1] <= MOST:
        labels = _names(names, counts.shape[1])
        metrics["per_class"] = {
            name: {
                "samples": int(labelled[i]),
                "accuracy": _number(recall[i]),
                "precision": _number(precision[i]),
                "f1": _number(f1[i]),
                **({"iou": _number(union[i])} if iou else {}),
            }
            for i, name in enumerate(labels)
        }
    return metrics


def of_ranking(outputs: Tensor, targets: Tensor) -> Measures:
    """Compute the area under the ROC curve of two classes; empty for more classes, or if one has no labels."""
    from sklearn.metrics import roc_auc_score

    valid = present(targets)
    labels = targets[valid].long()
    if outputs.shape[1] != 2 or len(torch.bincount(labels, minlength=2).nonzero()) != 2:
        return {}
    logits = outputs[valid].double()
    return {"auroc": float(roc_auc_score(labels.numpy(force=True), _ranks(logits[:, 1] - logits[:, 0])))}


def of_questions(outputs: Tensor, targets: Tensor, names: Sequence[str] | None = None) -> Measures:
    """Compute metrics of yes/no questions, from logits and labels ``(samples, questions)``.

    Returns:
        ``accuracy`` over all labels; the means over the questions of ``f1``, ``auroc`` and ``ap`` (average precision),
        the last two over questions with both a yes and a no; and, for several questions, ``per_label`` with these
        metrics by name.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score
    from torchmetrics.functional.classification import binary_f1_score

    valid = present(targets)
    if not valid.any():
        return {}
    answers = outputs > 0
    right = (answers == (targets > 0.5))[valid]
    rows: list[dict[str, float | int | None]] = []
    for column in range(outputs.shape[1]):
        labelled = valid[:, column]
        predicted, labels = answers[labelled, column].long(), (targets[labelled, column] > 0.5).long()
        row: dict[str, float | int | None] = {"samples": len(labels), "yes": int(labels.sum())}
        row["accuracy"] = (predicted == labels).double().mean().item() if len(labels) else None
        row["f1"] = binary_f1_score(predicted, labels).item() if len(labels) else None
        has_both = len(labels) and 0 < int(labels.sum()) < len(labels)
        truth, ranks = labels.numpy(force=True), _ranks(outputs[labelled, column])
        row["auroc"] = float(roc_auc_score(truth, ranks)) if has_both else None
        row["ap"] = float(average_precision_score(truth, ranks)) if has_both else None
        rows.append(row)
    metrics: Measures = {"accuracy": right.double().mean().item()}
    for name in ("f1", "auroc", "ap"):
        values = [value for row in rows if (value := row[name]) is not None]
        if values:
            metrics[name] = sum(values) / len(values)
    if 1 < len(rows) <= MOST:
        metrics["per_label"] = dict(zip(_names(names, len(rows)), rows, strict=True))
    return metrics


def of_values(outputs: Tensor, targets: Tensor, names: Sequence[str] | None = None) -> Measures:
    """Compute metrics of real numbers ``(samples, values)``.

    Returns:
        The means over the values of ``mae`` (mean absolute error), ``rmse`` and ``r2`` (for two samples or more); and,
        for several values, ``per_value`` with these metrics by name.
    """
    from torchmetrics.functional import mean_absolute_error, mean_squared_error

    valid = present(targets)
    rows: list[dict[str, float | int | None]] = []
    for column in range(outputs.shape[1]):
        labelled = valid[:, column]
        values, labels = (part[labelled, column].double().contiguous() for part in (outputs, targets))
        row: dict[str, float | int | None] = {"samples": len(labels), "mae": None, "rmse": None, "r2": None}
        if len(labels):
            row["mae"] = mean_absolute_error(values, labels).item()
            row["rmse"] = mean_squared_error(values, labels, squared=False).item()
        if len(labels) > 1:
            row["r2"] = _r2(values, labels)
        rows.append(row)
    metrics: Measures = {}
    for name in ("mae", "rmse", "r2"):
        numbers = [value for row in rows if (value := row[name]) is not None]
        if numbers:
            metrics[name] = sum(numbers) / len(numbers)
    if 1 < len(rows) <= MOST:
        metrics["per_value"] = dict(zip(_names(names, len(rows)), rows, strict=True))
    return metrics


def _r2(values: Tensor, labels: Tensor) -> float:
    """Compute the coefficient of determination; for constant labels 1 if all values are right, else 0.

    torchmetrics subtracts the squared mean from the mean square, which cancels far from 0, and takes sums below 1e-4
    for 0. Subtracting a label first, constant labels become exactly 0, whatever the rounding of their mean.
    """
    residual = (values - labels).square().sum()
    shifted = labels - labels[0]
    total = (shifted - shifted.mean()).square().sum()
    return float(1 - residual / total) if total else float(residual == 0)


def of_boxes(table: Tensor, most: int, names: Sequence[str] | None = None) -> Measures:
    """Compute COCO's metrics of boxes (Lin et al. 2014) from :func:`surgeon.training.detection.flat_boxes`.

    Args:
        table: A row per picture.
        most: The number of predicted boxes in a row.
        names: The names of the classes.

    Returns:
        ``map`` (the mean over IoU thresholds from 0.5 to 0.95), ``map_50``, ``map_75``, ``mar`` (the recall with 100
        boxes per picture), ``boxes`` (the number of labels), and ``per_class`` with ``boxes``, ``map`` and ``mar``.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(class_metrics=True)
    counts: Counter[int] = Counter()
    for row in table.cpu():
        predicted, annotated = row[: most * 6].reshape(-1, 6), row[most * 6 :].reshape(-1, 6)
        predicted, annotated = predicted[predicted[:, 1] >= 0], annotated[annotated[:, 0] >= 0]
        labels, crowd = annotated[:, 0].long(), annotated[:, 1].long()
        counts.update(labels[crowd == 0].tolist())
        boxes = {"boxes": predicted[:, 2:], "scores": predicted[:, 0], "labels": predicted[:, 1].long()}
        metric.update([boxes], [{"boxes": annotated[:, 2:], "labels": labels, "iscrowd": crowd}])
    with redirect_stdout(StringIO()):  # pycocotools reports its progress
        results = metric.compute()
    measured = {name: _of_coco(results[name]) for name in ("map", "map_50", "map_75")}
    metrics: Measures = {**measured, "mar": _of_coco(results["mar_100"]), "boxes": sum(counts.values())}
    by_class = zip(
        *(results[name].reshape(-1) for name in ("classes", "map_per_class", "mar_100_per_class")), strict=True
    )
    values = {int(number): (_of_coco(precision), _of_coco(recall)) for number, precision, recall in by_class}
    labels_of = list(names) if names else [str(number) for number in range(max(values, default=-1) + 1)]
    if len(labels_of) <= MOST:
        metrics["per_class"] = {
            name: dict(zip(("boxes", "map", "mar"), (counts[number], *values.get(number, (None, None))), strict=True))
            for number, name in enumerate(labels_of)
        }
    return metrics


def _ranks(scores: Tensor) -> NDArray[np.int64]:
    """Number the distinct scores in ascending order.

    Probabilities of confident logits round to 1 and tie; ranks of the logits do not, and may be infinite.
    """
    return np.unique(scores.double().numpy(force=True), return_inverse=True)[1]


def _of_coco(value: Tensor) -> float | None:
    """Convert to a number; None for -1, which stands for no boxes at all."""
    return None if float(value) < 0 else float(value)


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    return list(names) if names is not None and len(names) == count else [str(number) for number in range(count)]


def _number(value: Tensor) -> float | None:
    """Convert to a number; None for NaN, which JSON does not have."""
    number = float(value)
    return None if number != number else number
