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


@pytest.mark.parametrize(
    ("tracker", "extra"), [("wandb", "wandb"), ("comet_ml", "comet"), ("mlflow", "mlflow"), ("trackio", "trackio")]
)
def test_a_tracker_that_is_not_installed_names_the_extra_that_holds_it(tracker, extra, monkeypatch):
    from surgeon.training import trackers

    monkeypatch.setattr(trackers, "_installed", list)
    (problem,) = argument_problems({"report_to": [tracker]})
    assert f"python -m pip install 'surgeon-torch[{extra}]'" in problem.hint


@pytest.mark.usefixtures("never_trained")
def test_a_tracker_without_a_key_is_refused_before_training_and_any_way_to_give_one_counts(tmp_path, monkeypatch):
    from surgeon.training import trackers

    monkeypatch.setattr(trackers, "_installed", lambda: ["wandb", "comet_ml"])
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "WANDB_API_KEY", "WANDB_MODE", "COMET_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="wandb has no key of an account") as raised:
        train(make(), by_sgd(arguments={"report_to": "wandb"}), data=splits(), quiet=True)
    assert "wandb login" in raised.value.hint
    assert len(trackers.key_problems("all")) == 2
    with monkeypatch.context() as inside:
        inside.setenv("WANDB_MODE", "offline")
        assert trackers.key_problems("wandb") == []
    with monkeypatch.context() as inside:
        inside.setenv("WANDB_API_KEY", "secret")
        assert trackers.key_problems(["wandb"]) == []
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".comet.config").write_text("[comet]\napi_key=secret\n")
    assert trackers.key_problems("all") == []
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert len(trackers.key_problems("wandb")) == 1


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
