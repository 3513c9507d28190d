"""Settings that another setting takes the effect from are refused, and a loss follows what the network says."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.session import train


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def data(labels: str = "classes", count: int = 48) -> Splits:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, generator=draw)
    targets = {"classes": x[:, :3].argmax(1), "values": x[:, :3].clone(), "several": (x[:, :3] > 0).float()}[labels]
    part = Columns(x=x, labels=targets)
    return Splits(part, part, inputs=("x",), validation=part)


def run(labels: str = "classes", **settings):
    model = network()
    return train(model, TrainSettings(epochs=2, batch_size=16, **settings), data=data(labels), quiet=True)


VALUES = [Objective(output="logits", loss="mse")]
REFUSED = {
    "weights without classes": ("values", {"objectives": VALUES, "class_weights": "balanced"}, "class_weights has no"),
    "smoothing without classes": ("values", {"objectives": VALUES, "label_smoothing": 0.1}, "label_smoothing has no"),
    "weights that cancel": (
        "classes",
        {"objectives": [Objective(output="logits", mean="samples")], "class_weights": [1.0, 2.0, 3.0]},
        "weights have no effect",
    ),
    "warm-up of a constant rate": (
        "classes",
        {"warmup": 0.5, "arguments": {"lr_scheduler_type": "constant"}},
        "constant has no warm-up",
    ),
    "two orders of samples": (
        "classes",
        {"sampling": "balanced", "arguments": {"train_sampling_strategy": "sequential"}},
        "both choose the order",
    ),
    "several classes at once": ("several", {}, "labels of a sample that sum to 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_setting_without_effect_is_refused(kind):
    labels, settings, message = REFUSED[kind]
    with pytest.raises(TrainingError, match=message):
        run(labels, **settings)


class Attending(nn.Module):
    """A network with an attention layer, for which training has a warm-up by default."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.head = nn.MultiheadAttention(4, 1, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x[:, None], x[:, None], x[:, None])[0][:, 0])


@pytest.mark.parametrize(
    ("schedule", "warmup", "rises"),
    [
        ("constant", None, False),
        ("linear", None, True),
        ("constant_with_warmup", 0.5, True),
    ],
)
def test_the_rate_of_an_attending_network_rises_by_default_but_not_where_the_schedule_is_constant(
    schedule, warmup, rises
):
    arguments = {"lr_scheduler_type": schedule, "logging_strategy": "steps", "logging_steps": 1}
    settings = TrainSettings(epochs=8, batch_size=16, learning_rate=0.01, warmup=warmup, arguments=arguments)
    report = train(Attending(), settings, data=data(), quiet=True)
    rates = [entry["learning_rate"] for entry in report.history if "learning_rate" in entry]
    assert len(rates) == 24
    assert (rates[0] < max(rates) == pytest.approx(0.01)) is rises
    assert rises or set(rates) == {0.01}


@pytest.mark.parametrize(
    ("callback", "best", "higher"),
    [
        ("early_stopping", "logits_accuracy", True),
        ({"callback": "early_stopping", "metric": "logits_accuracy"}, "loss", False),
    ],
)
def test_the_best_network_is_chosen_in_the_direction_of_the_metric_that_is_compared(callback, best, higher):
    report = run(learning_rate=0.05, callbacks=[callback], arguments={"metric_for_best_model": best})
    seen = [entry[f"eval_{best}"] for entry in report.history if f"eval_{best}" in entry]
    kept = report.after["logits_accuracy"] if higher else report.after["logits_loss"]
    assert len(seen) == 2
    assert seen[0] != seen[1]
    assert kept == pytest.approx(max(seen) if higher else min(seen), abs=1e-4)


@pytest.mark.parametrize(
    ("problem", "labels"), [("multi_label_classification", "several"), ("regression", "values"), (None, "classes")]
)
def test_a_checkpoint_is_trained_by_the_loss_of_its_problem_type(problem, labels):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=3,
        problem_type=problem,
    )  # fmt: skip
    model = transformers.ResNetForImageClassification(config)
    samples = data(labels)
    pictures = torch.rand(48, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    part = Columns(pixel_values=pictures, labels=samples.train.columns["labels"])
    report = train(model, TrainSettings(epochs=1, batch_size=48), data=Splits(part, part), quiet=True)
    with torch.no_grad():
        expected = model.eval()(pixel_values=pictures, labels=samples.train.columns["labels"]).loss
    assert report.after["logits_loss"] == pytest.approx(float(expected), abs=1e-5)


def test_a_mean_of_weights_that_never_begins_is_said():
    stopping = {"callback": "early_stopping", "patience": 1, "threshold": 100.0}
    with pytest.warns(UserWarning, match="swa has averaged nothing"):
        train(
            network(),
            TrainSettings(epochs=8, batch_size=16, callbacks=[stopping], average={"kind": "swa", "start": 0.75}),
            data=data(),
            quiet=True,
        )
