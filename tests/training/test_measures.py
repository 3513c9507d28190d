"""What a report tells by task and domain, the picture of the curve, and logs for TensorBoard."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from surgeon.errors import TrainingError
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.curve import draw
from surgeon.training.losses import surgeon_losses
from surgeon.training.metrics import by_task_and_domain, rows
from surgeon.training.objectives import Target
from surgeon.training.session import train

DIGITS = {"source": "digits", "classes": [0, 1], "per_class": 4, "canvas": 8, "size": 8, "channels": 1}


def targets(*losses: str) -> list[Target]:
    losses_by_name = surgeon_losses()
    return [Target(Objective(output=loss, loss=loss, label=loss), losses_by_name[loss]) for loss in losses]


def test_measures_are_those_of_the_labelled_samples_of_each_domain():
    outputs = {
        "cross_entropy": torch.eye(3)[[0, 1, 2, 0, 0, 1]] * 9,
        "mse": torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]),
    }
    batch = {
        "cross_entropy": torch.tensor([0, 1, 1, 0, -100, 1]),
        "mse": torch.tensor([1.0, 2.5, 3.0, float("nan"), float("nan"), float("nan")]),
        "domain": torch.tensor([0, 0, 0, 1, 1, 1]),
    }
    both = targets("cross_entropy", "mse")
    measured = by_task_and_domain(both, ["classes", "values"], *rows(both, outputs, batch), ["here", "there"])
    classes = measured["cross_entropy"]
    assert classes["all"]["samples"] == 5
    assert classes["all"]["accuracy"] == pytest.approx(4 / 5)
    assert classes["here"]["accuracy"] == pytest.approx(2 / 3)
    assert classes["there"]["accuracy"] == 1
    # class 0: 1, class 1: 2 · 1 · ½ / 1½, class 2: 0
    assert classes["here"]["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert set(measured["mse"]) == {"all", "here"}, "no value is known there"
    assert measured["mse"]["here"]["mae"] == pytest.approx(0.5 / 3)
    assert measured["mse"]["here"]["r2"] == pytest.approx(1 - 0.25 / torch.tensor([1.0, 2.5, 3.0]).var().item() / 2)


def test_a_report_tells_the_accuracy_of_each_domain():
    data = [{**DIGITS, "domain": "a"}, {**DIGITS, "classes": [1, 0], "domain": "b", "labels": "hidden"}]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    report = train(model, TrainSettings(data=data, epochs=15, learning_rate=0.02, batch_size=8), quiet=True)
    measured = report.tasks["logits"]
    assert set(measured) == {"all", "a", "b"}
    assert measured["a"]["accuracy"] > 0.9
    assert measured["b"]["accuracy"] < 0.1, "its labels are swapped, and were never seen"
    assert measured["all"]["accuracy"] == pytest.approx(report.accuracy_after)


def test_the_curve_is_a_picture_with_a_line_for_each_loss():
    history = [{"epoch": e, "loss": 2.0 / e, "a&b_loss": 1.0 / e, "step": e} for e in (1, 2, 3)]
    root = ElementTree.fromstring(draw(history, "title"))
    lines = [element for element in root if element.tag.endswith("polyline")]
    assert len(lines) == 2
    heights = [float(point.split(",")[1]) for point in lines[0].attrib["points"].split()]
    assert heights == sorted(heights), "a falling loss goes down"
    assert "a&b loss" in [element.text for element in root]
    ElementTree.fromstring(draw([], "nothing was logged"))


def test_tensorboard_is_written_where_it_is_asked_for_or_said_to_be_missing(tmp_path, monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    settings = TrainSettings(data=DIGITS, epochs=1, arguments={"report_to": "tensorboard"})
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(TrainingError, match="tensorboard is not installed"):
            train(model, settings, output_dir=tmp_path, quiet=True)
        return
    with pytest.raises(TrainingError, match="no folder"):
        train(model, settings, quiet=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train(model, settings, output_dir=tmp_path / "out", quiet=True)
    assert list(tmp_path.glob("out/runs/events.out.tfevents*"))
    assert not list((tmp_path / "elsewhere").iterdir())
