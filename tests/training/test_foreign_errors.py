"""What other libraries raise is said as what it is, at the start where it can be known there."""

from __future__ import annotations

import pytest
import torch
from small import X, Y, by_sgd, make, splits
from torch.utils.data import Dataset
from transformers import Trainer

from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.training.arguments import argument_problems
from surgeon.training.session import train


class ReachedError(Exception):
    """Training has begun."""


@pytest.fixture
def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*args: object, **kwargs: object) -> None:
        raise ReachedError

    monkeypatch.setattr(Trainer, "train", reached)


@pytest.mark.usefixtures("never_trained")
@pytest.mark.parametrize("name", ["lomo", "apollo_adamw", "schedule_free_adamw", "lion_8bit"])
def test_an_optimizer_that_is_not_installed_is_refused_before_training(name):
    with pytest.raises(TrainingError, match="install") as raised:
        train(make(), by_sgd(arguments={"optim": name}), data=splits(), quiet=True)
    assert raised.value.where == "train.arguments.optim"


@pytest.mark.usefixtures("never_trained")
def test_an_optimizer_that_does_not_exist_is_refused_before_training():
    with pytest.raises(TrainingError, match="nonsense"):
        train(make(), by_sgd(arguments={"optim": "nonsense"}), data=splits(), quiet=True)


@pytest.mark.parametrize("given", ["wandb", ["tensorboard", "wandb"], "wanb"])
def test_a_tracker_that_is_not_there_is_refused_with_its_package(given, monkeypatch):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["tensorboard"])
    problems = argument_problems({"report_to": given})
    assert len(problems) == 1
    assert "wandb" in f"{problems[0].message} {problems[0].hint}"


def test_an_exception_of_the_network_names_the_library_and_place():
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x[:, :5] if self.training else x)

    with pytest.raises(TrainingError, match=r"torch ended the training \(linear.py:\d+\): RuntimeError: mat1"):
        train(make(Broken), by_sgd(), data=splits(), quiet=True)


def test_an_exception_of_a_dataset_is_said_as_its_own():
    class Torn(Dataset):
        def __len__(self) -> int:
            return 48

        def __getitem__(self, index: int) -> dict:
            if index == 30:
                raise KeyError("page 30 is torn")
            return {"x": X[index], "labels": Y[index]}

    with pytest.raises(TrainingError, match="KeyError: 'page 30 is torn'"):
        train(make(), by_sgd(), data=Splits(Torn(), splits().test, ("x",)), quiet=True)


def test_too_little_memory_suggests_smaller_batches(monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "train", full)
    with pytest.raises(TrainingError, match=r"out of memory.*\n.*smaller batch_size"):
        train(make(), by_sgd(), data=splits(), quiet=True)


def test_a_mistake_of_surgeons_own_is_not_blamed_on_others(monkeypatch):
    from surgeon.training import metrics

    monkeypatch.setattr(metrics, "COLUMNS", None)
    monkeypatch.setattr(metrics, "_nll", None)
    with pytest.raises(TypeError):
        train(make(), by_sgd(), data=splits(), quiet=True)
