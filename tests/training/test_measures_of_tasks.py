"""Measures of predictions, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from surgeon.interfaces.training import Objective
from surgeon.training.losses import mse
from surgeon.training.measures import MOST, confusion_of, of_confusion, of_questions, of_ranking, of_values
from surgeon.training.metrics import by_task_and_domain, rows
from surgeon.training.objectives import Target

DRAW = torch.Generator().manual_seed(0)


def test_classes_are_measured_as_by_scikit_learn():
    labels = torch.randint(0, 5, (300,), generator=DRAW)
    labels[labels == 3] = 0
    logits = torch.randn(300, 5, generator=DRAW) + 2 * F.one_hot(labels, 5)
    labels[::7] = -100
    measured = of_confusion(confusion_of(logits, labels, 5), ["a", "b", "c", "d", "e"])
    some = labels >= 0
    truth, predicted = labels[some].numpy(), logits.argmax(1)[some].numpy()
    assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    recalls = metrics.recall_score(truth, predicted, average=None, labels=[0, 1, 2, 4])
    assert measured["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert measured["f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))
    assert measured["confusion"] == metrics.confusion_matrix(truth, predicted, labels=range(5)).tolist()
    assert measured["per_class"]["e"]["accuracy"] == pytest.approx(recalls[3])
    assert measured["per_class"]["d"] == {"samples": 0, "accuracy": None, "precision": pytest.approx(0), "f1": 0}


def test_two_classes_have_an_area_under_the_curve():
    labels = torch.randint(0, 2, (200,), generator=DRAW)
    logits = torch.randn(200, 2, generator=DRAW) + F.one_hot(labels, 2)
    expected = metrics.roc_auc_score(labels.numpy(), logits.softmax(1)[:, 1].numpy())
    assert of_ranking(logits, labels)["auroc"] == pytest.approx(expected, abs=1e-6)


def test_questions_are_measured_as_by_scikit_learn():
    labels = torch.randint(0, 2, (200, 3), generator=DRAW).float()
    logits = torch.randn(200, 3, generator=DRAW) + labels
    labels[:20, 1] = torch.nan
    labels[:, 2] = 1
    measured = of_questions(logits, labels, ["big", "red", "old"])
    truth, scores = labels[20:, 1].numpy(), logits[20:, 1].sigmoid().numpy()
    assert measured["per_label"]["red"]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-6)
    assert measured["per_label"]["red"]["ap"] == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-6)
    assert measured["per_label"]["old"]["auroc"] is None, "it has no no"
    both = [measured["per_label"][name]["auroc"] for name in ("big", "red")]
    assert measured["auroc"] == pytest.approx(np.mean(both))


def test_values_are_measured_as_by_scikit_learn():
    labels = torch.randn(100, 2, generator=DRAW)
    values = labels + torch.randn(100, 2, generator=DRAW)
    measured = of_values(values, labels)
    assert measured["mae"] == pytest.approx(metrics.mean_absolute_error(labels, values), abs=1e-5)
    assert measured["r2"] == pytest.approx(metrics.r2_score(labels, values), abs=1e-5)
    assert measured["per_value"]["1"]["r2"] == pytest.approx(metrics.r2_score(labels[:, 1], values[:, 1]), abs=1e-5)


@pytest.mark.parametrize(
    ("mean", "spread"),
    [(0, 1), (37, 0.5), (2000, 10), (1e5, 10), (-3e6, 40), (1.7e9, 1e4), (0, 1e-4), (5, 1e-3)],
)
def test_values_far_from_zero_or_close_together_are_measured_as_by_scikit_learn(mean, spread):
    labels = (mean + spread * torch.randn(500, 2, generator=DRAW, dtype=torch.float64)).float()
    values = (labels.double() + 0.3 * spread * torch.randn(500, 2, generator=DRAW, dtype=torch.float64)).float()
    measured = of_values(values, labels)
    truth, predicted = labels.double().numpy(), values.double().numpy()
    assert measured["mae"] == pytest.approx(metrics.mean_absolute_error(truth, predicted), rel=1e-9)
    squares = metrics.mean_squared_error(truth, predicted, multioutput="raw_values")
    assert measured["rmse"] == pytest.approx(np.sqrt(squares).mean(), rel=1e-9)
    for column in range(2):
        assert measured["per_value"][str(column)]["r2"] == pytest.approx(
            metrics.r2_score(truth[:, column], predicted[:, column]), abs=1e-9
        )


@pytest.mark.parametrize("constant", [3.0, 0.1, 1e5 + 0.3])
def test_constant_labels_have_the_r2_of_scikit_learn(constant):
    labels = torch.full((11, 1), constant)
    assert of_values(labels + 0.1, labels)["r2"] == 0
    assert of_values(labels, labels)["r2"] == 1


def test_values_in_float64_keep_their_digits_from_the_batch_on():
    generator = torch.Generator().manual_seed(3)
    labels = 1.7e9 + torch.randn(200, 1, generator=generator, dtype=torch.float64)
    values = labels + 0.3 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    target = Target(Objective(output="times", loss="mse", label="times"), mse)
    table, sizes = rows([target], {"times": values}, {"times": labels})
    measured = by_task_and_domain([target], ["values"], table, sizes, ())["times"]["all"]
    assert measured["r2"] == pytest.approx(metrics.r2_score(labels.numpy(), values.numpy()), abs=1e-9)
    assert measured["mae"] == pytest.approx(metrics.mean_absolute_error(labels.numpy(), values.numpy()), rel=1e-9)
    dtypes = []
    added = {"times": {"noted": lambda *both: dtypes.extend(part.dtype for part in both) or 0.0}}
    by_task_and_domain([target], ["values"], table, sizes, (), further=added)
    assert dtypes == [torch.float32] * 2, "as metrics of plugins are promised"


def confident_logits(size: float, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Yes or no, and logits that overlap but whose probabilities are all but 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (1000,), generator=generator)
    return (labels * 2 - 1) * 0.6 * size + size * torch.randn(1000, generator=generator) + offset, labels


CONFIDENT = pytest.mark.parametrize(("size", "offset"), [(1, 0), (12, 20), (12, -20), (40, 0), (1e3, 0), (1, 60)])


@CONFIDENT
def test_confident_classes_are_ranked_by_their_logits(size, offset):
    score, labels = confident_logits(size, offset)
    expected = metrics.roc_auc_score(labels, score)
    for first in (0 * score, -score, score.neg() / 2 + 3):
        exact = metrics.roc_auc_score(labels, (score.double() - first.double()).numpy())
        assert of_ranking(torch.stack([first, score], 1), labels)["auroc"] == pytest.approx(exact, abs=1e-9)
        assert exact == pytest.approx(expected, abs=1e-9)


@CONFIDENT
def test_confident_questions_are_ranked_by_their_logits(size, offset):
    score, labels = confident_logits(size, offset)
    of_two = of_questions(torch.stack([score, -score], 1), torch.stack([labels, 1 - labels], 1).float(), ["yes", "no"])
    for name, scores, truth in (("yes", score, labels), ("no", -score, 1 - labels)):
        measured = of_two["per_label"][name]
        assert measured["auroc"] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-9)
        assert measured["ap"] == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-9)
        assert measured["f1"] == pytest.approx(metrics.f1_score(truth, scores > 0))
        assert measured["accuracy"] == pytest.approx(metrics.accuracy_score(truth, scores > 0))


def test_ties_and_logits_without_end_are_ranked():
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    scores = torch.tensor([-torch.inf, 2.0, 2.0, torch.inf, 1.0, 1.0])
    ranks = [0, 2, 2, 3, 1, 1]
    measured = of_questions(scores[:, None], labels[:, None].float())
    assert measured["auroc"] == pytest.approx(metrics.roc_auc_score(labels, ranks))
    assert measured["ap"] == pytest.approx(metrics.average_precision_score(labels, ranks))
    both = torch.stack([torch.zeros(6), scores], 1)
    assert of_ranking(both, labels)["auroc"] == pytest.approx(metrics.roc_auc_score(labels, ranks))


def test_a_barely_positive_logit_is_a_yes_for_every_measure():
    measured = of_questions(torch.tensor([[1e-9], [-1.0]]), torch.tensor([[1.0], [0.0]]), ["a"])
    assert (measured["accuracy"], measured["f1"]) == (1, 1)


def test_the_missing_pixels_are_not_counted():
    pixels = torch.randint(0, 4, (2, 3, 5), generator=DRAW)
    pixels[0, 0] = -100
    logits = torch.randn(2, 4, 3, 5, generator=DRAW)
    confusion = confusion_of(logits, pixels, 4)
    labelled = pixels != -100
    expected = metrics.confusion_matrix(pixels[labelled], logits.argmax(1)[labelled], labels=range(4))
    assert confusion.tolist() == expected.tolist()


def test_many_classes_have_no_matrix():
    labels = torch.arange(MOST + 1)
    measured = of_confusion(confusion_of(torch.eye(MOST + 1), labels, MOST + 1))
    assert "confusion" not in measured
    assert measured["accuracy"] == 1
