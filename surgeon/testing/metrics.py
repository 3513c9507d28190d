"""Check metrics: measure predictions of a batch, of single samples and of one class, in several orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from surgeon.data.labels import IGNORED, present
from surgeon.errors import SurgeonError
from surgeon.interfaces import offers
from surgeon.recipe.train_settings import MetricSettings
from surgeon.testing.global_state import unchanged_globals
from surgeon.testing.runs import same
from surgeon.training.further_metrics import make_further

NAME = "metric"


def check_metric(
    metric: Callable[..., Any], prediction: Tensor, target: Tensor, *, missing: float | None = None, **options: Any
) -> float:
    """Measure predictions as an evaluation does, and in ways that must make no difference.

    Args:
        metric: The metric.
        prediction: Predictions of at least three samples, ``(samples, outputs)``.
        target: Their labels, without missing ones: classes ``(samples,)``, or numbers in the shape of the predictions.
        missing: NaN if single labels of a sample may be missing: the metric has to leave these out. None if not.
        **options: Options of the metric, as in a recipe.

    Returns:
        What it measured.

    Raises:
        AssertionError: A promise is broken; the message says which, and how to mend it.
    """
    if len(prediction) < 3 or len(target) != len(prediction):
        raise AssertionError("pass predictions and labels of the same samples, at least three")
    if not bool(present(target).all()):
        raise AssertionError(f"pass labels without missing ones ({IGNORED}, NaN): samples without any are left out")
    offers.metrics({NAME: metric})
    prediction = prediction.detach().float()
    value = _measured(metric, prediction, target, options, "on the given samples")
    if not math.isfinite(value):
        raise AssertionError(f"the metric is {value} on the given samples; expected a finite number")
    _check_repetition(metric, prediction, target, options, value)
    _check_parts(metric, prediction, target, options)
    if all(
        _equal(value, _measured(metric, other, target, options, "on other predictions"))
        for other in _others(prediction)
    ):
        raise AssertionError(
            f"the metric is {value:g} whatever is predicted: does it read its first argument, the predictions? Classes "
            "come as logits: prediction.argmax(1), prediction.softmax(1)"
        )
    if missing is not None:
        _check_missing(metric, prediction, target, missing, options)
    return value


def _measured(
    metric: Callable[..., Any], prediction: Tensor, target: Tensor, options: dict[str, Any], where: str
) -> float:
    """Measure once.

    Raises:
        AssertionError: The metric raises an error, gives no number, or changes what it is given or torch's state.
    """
    originals = prediction.clone(), target.clone()
    try:
        (further,) = make_further([MetricSettings(metric=NAME, **options)], {NAME: metric})
        with unchanged_globals("the metric"):
            value = further(*originals)
    except SurgeonError as error:
        raise AssertionError(f"{where}, {error.message}" + (f": {error.hint}" if error.hint else "")) from error
    for name, before, after in zip(("predictions", "labels"), (prediction, target), originals, strict=True):
        if not same([before], [after]):
            raise AssertionError(
                f"the metric changes the {name} that it is given, which the other metrics get too: work on a copy, "
                "without functions that end in _"
            )
    return value


def _check_repetition(
    metric: Callable[..., Any], prediction: Tensor, target: Tensor, options: dict[str, Any], value: float
) -> None:
    if not _equal(value, again := _measured(metric, prediction, target, options, "the second time")):
        raise AssertionError(
            f"the metric is {value:g}, and {again:g} the second time: it keeps something from call to call. Domains, "
            "epochs and outputs are measured one after the other: compute from the arguments alone"
        )
    order = torch.arange(len(prediction)).roll(1).flip(0)
    if not _equal(value, turned := _measured(metric, prediction[order], target[order], options, "in another order")):
        raise AssertionError(
            f"the metric is {value:g}, and {turned:g} with the same samples in another order, which differs between "
            "machines and numbers of processes: treat all samples alike"
        )


def _check_parts(metric: Callable[..., Any], prediction: Tensor, target: Tensor, options: dict[str, Any]) -> None:
    """Measure what small domains have: one sample, and samples with equal labels. NaN says that it is undefined."""
    _measured(metric, prediction[:1], target[:1], options, "on a domain with one sample")
    alike = target[:1].expand_as(target).clone()
    _measured(metric, prediction, alike, options, "on a domain where all labels are equal")


def _check_missing(
    metric: Callable[..., Any], prediction: Tensor, target: Tensor, missing: float, options: dict[str, Any]
) -> None:
    gap = target.clone()
    if gap.ndim < 2 or gap[0].numel() < 2:
        raise AssertionError(
            "missing= is for samples with several labels: a sample whose only label is missing is left out"
        )
    gap.reshape(len(gap), -1)[0, 0] = missing
    if bool(present(gap).all()):
        raise AssertionError(f"{missing} is not how a missing label is written: {IGNORED} of classes, NaN of numbers")
    value = _measured(metric, prediction, gap, options, "where a label is missing")
    if not math.isfinite(value):
        raise AssertionError(f"the metric is {value} where one label is missing: leave it out, ~target.isnan()")
    other = prediction.clone()
    other.reshape(len(other), -1)[0, 0] = 1e3
    if prediction.shape == gap.shape and not _equal(
        value, _measured(metric, other, gap, options, "where a label is missing")
    ):
        raise AssertionError("a prediction whose label is missing changes the metric: leave it out, ~target.isnan()")


def _others(prediction: Tensor) -> Iterator[Tensor]:
    yield -prediction
    yield prediction.roll(1, 0)
    yield torch.zeros_like(prediction)
    yield prediction.roll(1, -1)


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))
