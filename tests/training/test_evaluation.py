"""Every test sample is measured, in batches of the recipe's size, and what is measured in between is shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import X, Y, by_sgd, make, splits

from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.training.curve import draw
from surgeon.training.session import train


def test_dropping_the_last_batch_of_training_drops_no_test_sample():
    data = Splits(Columns(x=X, labels=Y), Columns(x=X[:21], labels=Y[:21]), ("x",))
    report = train(make(), by_sgd(batch_size=16, arguments={"dataloader_drop_last": True}), data=data, quiet=True)
    assert report.tasks["logits"]["all"]["samples"] == 21


@pytest.mark.parametrize(("arguments", "size"), [({}, 5), ({"per_device_eval_batch_size": 7}, 7)])
def test_batches_are_as_large_as_those_of_training_unless_said_otherwise(arguments, size):
    sizes = []
    model = make()
    model.a.register_forward_hook(lambda _, args, output: None if model.training else sizes.append(len(output)))
    train(model, by_sgd(epochs=1, batch_size=5, arguments=arguments), data=splits(), quiet=True)
    assert max(sizes) == size


def test_what_is_measured_in_between_is_in_history_json_and_curve():
    data = dataclasses.replace(splits(), validation=splits().test)
    report = train(make(), by_sgd(epochs=3, arguments={"eval_strategy": "epoch"}), data=data, quiet=True)
    assert [
        sorted({"loss", "eval_logits_loss", "eval_logits_accuracy"} & entry.keys()) for entry in report.history
    ] == [["eval_logits_accuracy", "eval_logits_loss", "loss"]] * 3
    assert report.to_dict()["history"][-1]["eval_logits_loss"] == pytest.approx(report.after["logits_loss"])
    assert "eval logits loss" in draw(report.history, "title")


def test_the_report_holds_balanced_accuracy_each_class_and_the_confusion_matrix():
    labels = torch.tensor([0] * 40 + [1] * 6 + [2] * 2)
    report = train(make(), by_sgd(epochs=1), data=splits(X, labels), quiet=True)
    measured = report.tasks["logits"]["all"]
    assert sum(map(sum, measured["confusion"])) == 48
    recalls = [row["accuracy"] for row in measured["per_class"].values()]
    assert measured["balanced_accuracy"] == pytest.approx(sum(recalls) / 3)
    assert report.learning_rate == 0.1
