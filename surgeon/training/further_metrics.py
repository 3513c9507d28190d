"""Metrics that a recipe adds to those of a task: the built-in ones, and those of plugins."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from surgeon.errors import PluginError, SurgeonWarning, TrainingError, suggest
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.offers import signature_of
from surgeon.interfaces.returned import raised_in, refuse_return
from surgeon.recipe.train_settings import MetricSettings
from surgeon.training.objectives import Target

Metric = Callable[..., float]
"""Called with the predictions and labels of all samples, and its options; returns one number."""
TASKS = ("classes", "questions", "values", None)
"""The tasks whose predictions are all kept; those of tokens and pixels would fill the memory. None: the loss has no
metrics of its own, as that of a plugin, and predictions are kept where a recipe's metric measures them."""
WHERE = "train.metrics"


def calibration_error(prediction: Tensor, target: Tensor, *, bins: int = 15) -> float:
    """Compute the expected calibration error of classes (Naeini et al. 2015), with torchmetrics.

    Args:
        prediction: Logits ``(samples, classes)``.
        target: Classes ``(samples,)``.
        bins: Into how many intervals of confidence samples are sorted.
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    if prediction.ndim != 2 or target.ndim != 1:
        raise ValueError(f"needs logits (samples, classes) and classes (samples,), got labels {tuple(target.shape)}")
    shares = prediction.softmax(1)
    return float(multiclass_calibration_error(shares, target, prediction.shape[1], n_bins=bins))


@hookimpl
def surgeon_metrics() -> Mapping[str, Metric]:
    """Register the built-in metrics that a recipe may add."""
    return {"calibration_error": calibration_error}


@dataclass(frozen=True)
class Further:
    """A metric that a recipe names.

    Attributes:
        name: Its name.
        metric: The function.
        options: Its options.
        output: The output that it measures; None for all.
    """

    name: str
    metric: Metric
    options: Mapping[str, Any]
    output: str | None

    def __call__(self, prediction: Tensor, target: Tensor) -> float:
        """Compute the metric.

        Args:
            prediction: The predictions of all samples with labels, ``(samples, outputs)``, in float32 on the CPU.
            target: Their labels: classes ``(samples,)``, or numbers in the shape of the predictions, NaN if missing.
                Behind the loss of a plugin, both have the shapes that the loss gets.

        Raises:
            PluginError: The function of a plugin raised an exception, or returned something else than a number.
        """
        call = f"the metric {self.name!r}"
        with torch.no_grad():
            value: Any = raised_in(self.metric, call, lambda: self.metric(prediction, target, **self.options))
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, (int, float)):
            raise refuse_return(self.metric, call, "one number", value)
        return float(value)


def make_further(entries: Sequence[str | MetricSettings], available: Mapping[str, Metric]) -> list[Further]:
    """Make the metrics that a recipe names.

    Raises:
        TrainingError: A name or an option is unknown, or one is named twice for an output.
    """
    metrics: list[Further] = []
    for index, entry in enumerate(entries):
        settings = MetricSettings(metric=entry) if isinstance(entry, str) else entry
        where, name = f"{WHERE}.{index}", settings.metric
        if name not in available:
            raise TrainingError(
                f"unknown metric {name!r} (available: {', '.join(available)})",
                where=where,
                hint=suggest(name, available),
            )
        parameters = list(signature_of(available[name]).parameters)[2:]
        try:
            signature_of(available[name]).bind(None, None, **settings.options)
        except TypeError as error:
            wrong = next((key for key in settings.options if key not in parameters), "")
            hint = suggest(wrong, parameters) or f"its options are: {', '.join(parameters) or 'none'}"
            raise TrainingError(f"the metric {name!r}: {error}", where=where, hint=hint) from error
        if any(earlier.name == name and None in (earlier.output, settings.output, None) for earlier in metrics):
            raise TrainingError(f"{name!r} is named twice", where=where, hint="name each once")
        metrics.append(Further(name, available[name], settings.options, settings.output))
    return metrics


def keeping(targets: Sequence[Target], tasks: Sequence[str | None], further: Sequence[Further]) -> list[Target]:
    """Keep the predictions that a metric measures and that the metrics of a task do not need."""
    measured = {metric.output for metric in further}
    return [
        replace(target, kept=task is None and not measured.isdisjoint({None, target.objective.output}))
        for target, task in zip(targets, tasks, strict=True)
    ]


def by_output(
    further: Sequence[Further], tasks: Mapping[str, str | None], widths: Mapping[str, int]
) -> dict[str, dict[str, Further]]:
    """Sort metrics by the outputs that they measure, and then by name.

    Args:
        further: The metrics.
        tasks: The task of each output.
        widths: How many columns of predictions and labels are kept of each output.

    Raises:
        TrainingError: An output does not exist, or its predictions are not kept.
    """
    able = [output for output, task in tasks.items() if task in TASKS and widths[output]]
    for metric in further:
        if metric.output is not None and metric.output not in tasks:
            raise TrainingError(
                f"the metric {metric.name!r} names the output {metric.output!r} (available: {', '.join(tasks)})",
                where=WHERE,
                hint=suggest(metric.output, tasks),
            )
        if not able or metric.output not in (None, *able):
            raise TrainingError(
                f"the metric {metric.name!r} needs all predictions at once, which are not kept for tokens, pixels, "
                "and outputs or labels of more than 256 numbers",
                where=WHERE,
                hint=f"name another output: {', '.join(able)}" if able else "leave it out",
            )
    return {
        output: {metric.name: metric for metric in further if metric.output in (None, output)}
        for output in able
        if further
    }


def tolerant(further: Mapping[str, Mapping[str, Further]]) -> dict[str, dict[str, Callable[[Tensor, Tensor], float]]]:
    """Let metrics warn and give NaN where they fail: after training, the trained weights must not be lost."""

    def measure(metric: Further, prediction: Tensor, target: Tensor) -> float:
        try:
            return metric(prediction, target)
        except PluginError as error:
            warnings.warn(f"{error.message}: not measured", SurgeonWarning, stacklevel=2)
            return math.nan

    return {
        output: {name: partial(measure, metric) for name, metric in metrics.items()}
        for output, metrics in further.items()
    }
