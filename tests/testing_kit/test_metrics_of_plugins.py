"""check_metric: surgeon's own metric passes, and each mistake is named."""

from __future__ import annotations

import math
import random

import pytest
import torch

from surgeon.testing import check_metric
from surgeon.training.further_metrics import calibration_error

LOGITS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(12) % 3
ANSWERS = (LOGITS > 0.3).float()
COUNTED: list[float] = []


def accuracy(prediction, target):
    return (prediction.argmax(1) == target).float().mean()


def hamming(prediction, target):
    given = ~target.isnan()
    return ((prediction > 0) == (target > 0.5))[given].float().mean().item()


def accumulating(prediction, target):
    COUNTED.append(accuracy(prediction, target).item())
    return sum(COUNTED)


def on_a_sample_drawn(prediction, target):
    chosen = random.sample(range(len(target)), max(1, len(target) // 2))
    return accuracy(prediction[chosen], target[chosen]) + random.random()


def by_batches(prediction, target):
    return accuracy(prediction[:5], target[:5])


def clamping(prediction, target):
    return (prediction.clamp_(min=0).argmax(1) == target).float().mean()


def shifting(prediction, target):
    return (target.sub_(1) == prediction.argmax(1)).float().mean()


def of_labels_alone(prediction, target):
    return target.float().mean()


def of_at_least_two(prediction, target):
    if len(target) < 2:
        raise ValueError("needs two samples")
    return accuracy(prediction, target)


def of_several_classes(prediction, target):
    if len(target.unique()) < 2 < len(target):
        raise ValueError("only one class is present")
    return accuracy(prediction, target)


def undefined(prediction, target):
    return accuracy(prediction, target) / 0


def by_class(prediction, target):
    return (prediction.argmax(1) == target).float()


def seeding(prediction, target):
    torch.manual_seed(0)
    return accuracy(prediction, target)


def double(prediction, target):
    torch.set_default_dtype(torch.float64)
    return accuracy(prediction, target)


def careless(prediction, target):
    return ((prediction - target) ** 2).mean()


def half_careless(prediction, target):
    return ((prediction > 0) == (target > 0.5)).float().mean()


def test_the_built_in_metric_passes():
    value = check_metric(calibration_error, LOGITS, CLASSES, bins=5)
    assert value == pytest.approx(calibration_error(LOGITS, CLASSES, bins=5))
    check_metric(accuracy, LOGITS, CLASSES)
    check_metric(hamming, LOGITS, ANSWERS, missing=math.nan)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (accumulating, "the second time: it keeps something"),
        (on_a_sample_drawn, "the second time"),
        (by_batches, "in another order"),
        (clamping, "changes the predictions"),
        (shifting, "changes the labels"),
        (of_labels_alone, "whatever is predicted"),
        (of_at_least_two, "on a domain with one sample.*ValueError: needs two samples"),
        (of_several_classes, "on a domain where all labels are equal.*only one class"),
        (undefined, "is inf on the given samples"),
        (by_class, r"returned a Tensor of shape \(12,\).*expected one number"),
        (seeding, "draws or seeds torch's random numbers"),
        (double, "changes torch's global state .*the default dtype"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_is_named(metric, message):
    random.seed(0)
    COUNTED.clear()
    with pytest.raises(AssertionError, match=message):
        check_metric(metric, LOGITS, CLASSES)


@pytest.mark.parametrize(
    ("metric", "message"),
    [(careless, "is nan where one label is missing"), (half_careless, "label is missing changes")],
)
def test_a_missing_label_that_counts_is_refused(metric, message):
    check_metric(metric, LOGITS, ANSWERS)
    with pytest.raises(AssertionError, match=message):
        check_metric(metric, LOGITS, ANSWERS, missing=math.nan)


def test_an_option_that_it_does_not_take_is_refused_with_those_that_it_takes():
    with pytest.raises(AssertionError, match=r"unexpected keyword argument 'bin'[\s\S]*bins"):
        check_metric(calibration_error, LOGITS, CLASSES, bin=5)
