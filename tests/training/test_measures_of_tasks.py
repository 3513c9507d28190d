"""Measures of predictions, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional as F

from surgeon.training.measures import MOST, confusion_of, of_confusion, of_questions, of_ranking, of_values

DRAW = torch.Generator().manual_seed(0)


def test_classes_are_measured_as_by_scikit_learn():
    labels = torch.randint(0, 5, (300,), generator=DRAW)
    labels[labels == 3] = 0
    logits = torch.randn(300, 5, generator=DRAW) + 2 * F.one_hot(labels, 5)
    labels[::7] = -100
    found = of_confusion(confusion_of(logits, labels, 5), ["a", "b", "c", "d", "e"])
    some = labels >= 0
    truth, predicted = labels[some].numpy(), logits.argmax(1)[some].numpy()
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    recalls = metrics.recall_score(truth, predicted, average=None, labels=[0, 1, 2, 4])
    assert found["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert found["f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro", zero_division=0))
    assert found["confusion"] == metrics.confusion_matrix(truth, predicted, labels=range(5)).tolist()
    assert found["per_class"]["e"]["accuracy"] == pytest.approx(recalls[3])
    assert found["per_class"]["d"] == {"samples": 0, "accuracy": None, "precision": pytest.approx(0), "f1": 0}


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
    found = of_questions(logits, labels, ["big", "red", "old"])
    truth, scores = labels[20:, 1].numpy(), logits[20:, 1].sigmoid().numpy()
    assert found["per_label"]["red"]["auroc"] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-6)
    assert found["per_label"]["red"]["ap"] == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-6)
    assert found["per_label"]["old"]["auroc"] is None, "it has no no"
    both = [found["per_label"][name]["auroc"] for name in ("big", "red")]
    assert found["auroc"] == pytest.approx(np.mean(both))


def test_values_are_measured_as_by_scikit_learn():
    labels = torch.randn(100, 2, generator=DRAW)
    values = labels + torch.randn(100, 2, generator=DRAW)
    found = of_values(values, labels)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, values), abs=1e-5)
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, values), abs=1e-5)
    assert found["per_value"]["1"]["r2"] == pytest.approx(metrics.r2_score(labels[:, 1], values[:, 1]), abs=1e-5)


def test_the_missing_pixels_are_not_counted():
    pixels = torch.randint(0, 4, (2, 3, 5), generator=DRAW)
    pixels[0, 0] = -100
    logits = torch.randn(2, 4, 3, 5, generator=DRAW)
    confusion = confusion_of(logits, pixels, 4)
    known = pixels != -100
    expected = metrics.confusion_matrix(pixels[known], logits.argmax(1)[known], labels=range(4))
    assert confusion.tolist() == expected.tolist()


def test_many_classes_have_no_matrix():
    labels = torch.arange(MOST + 1)
    found = of_confusion(confusion_of(torch.eye(MOST + 1), labels, MOST + 1))
    assert "confusion" not in found
    assert found["accuracy"] == 1
