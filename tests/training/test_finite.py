"""Training ends at the first loss or gradient that is not finite, with what was good kept."""

from __future__ import annotations

import pytest
import torch
from small import X, Y, by_sgd, make, splits

from surgeon.errors import TrainingError
from surgeon.training.losses import cross_entropy
from surgeon.training.metrics import means, rows
from surgeon.training.objectives import Objective, Target
from surgeon.training.session import train


def steps_until_the_error(arguments: dict, **changes) -> tuple[list[int], TrainingError, torch.nn.Module]:
    steps: list[int] = []
    model = make()
    train_settings = by_sgd(epochs=50, batch_size=16, arguments=arguments, **changes)
    with pytest.raises(TrainingError) as raised:
        train(model, train_settings, data=splits(), progress=lambda step, *_: steps.append(step))
    return steps, raised.value, model


@pytest.mark.parametrize(
    "logging", [{}, {"logging_strategy": "no"}, {"logging_strategy": "steps", "logging_steps": 500}]
)
def test_training_stops_at_once_however_seldom_it_logs(logging):
    steps, error, _ = steps_until_the_error(logging, learning_rate=1e30)
    assert len(steps) <= 3
    assert "diverged at step" in error.message
    assert "learning rate of 1e+30" in error.message
    assert "smaller learning_rate" in str(error.hint)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change():
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Root.apply(self.layer(x))

    model = make(Broken)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"norm of the gradients is .* \(first in layer"):
        train(model, by_sgd(), data=splits(), quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_last_good_checkpoint_is_named_and_stays(tmp_path):
    model = make()

    def poison(step: int, *_: object) -> None:
        if step == 4:
            with torch.no_grad():
                model.a.weight[0, 0] = torch.inf

    train_settings = by_sgd(epochs=6, batch_size=16)
    with pytest.raises(TrainingError) as raised:
        train(model, train_settings, data=splits(), progress=poison, output_dir=tmp_path, checkpoints=True)
    assert str(tmp_path / "checkpoint-3") in str(raised.value.hint)
    assert (tmp_path / "checkpoint-3" / "model.safetensors").exists()


def test_a_loss_of_several_is_named():
    labels = torch.randn(48)
    labels[3] = torch.inf
    from surgeon.data.columns import Columns
    from surgeon.interfaces.splits import Splits

    data = Columns(x=X, labels=Y, size=labels)
    objectives = [Objective(output="logits"), Objective(output="logits2", loss="mse", label="size")]

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 3), torch.nn.Linear(6, 1)

        def forward(self, x: torch.Tensor) -> dict:
            return {"logits": self.a(x), "logits2": self.b(x)}

    with pytest.raises(TrainingError, match="the loss of logits2 is inf"):
        train(make(Two), by_sgd(objectives=objectives), data=Splits(data, data, ("x",)), quiet=True)


def test_a_sample_whose_loss_is_not_a_number_is_not_passed_over():
    target = Target(Objective(output="logits"), cross_entropy)
    logits = torch.zeros(2, 3)
    logits[1] = torch.nan
    measured = means([target], *rows([target], {"logits": logits}, {"labels": torch.tensor([0, 1])}))
    assert measured["logits_loss"] != measured["logits_loss"]
