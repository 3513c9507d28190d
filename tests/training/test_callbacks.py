"""Callbacks by name: early stopping, those of plugins, and progress reports."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from surgeon import cli, hookimpl
from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Schedule
from surgeon.nn.outputs import Outputs
from surgeon.plugins import load
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.callbacks import ProgressCallback, in_words
from surgeon.training.session import train


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def noise() -> Splits:
    """Labels that follow from nothing: what is learnt of them makes the validation samples worse."""
    draw = torch.Generator().manual_seed(0)

    def split(count: int) -> Columns:
        x, y = torch.randn(count, 4, generator=draw), torch.randint(2, (count,), generator=draw)
        return Columns(pixel_values=x, labels=y)

    return Splits(split(16), split(64), validation=split(64))


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"epochs": 30, "batch_size": 8, "learning_rate": 0.05, **changes})


STOP = {"callback": "early_stopping", "patience": 2}


class StopAfter(TrainerCallback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.epoch >= self.epochs


def test_training_stops_when_the_validation_loss_rises_and_goes_back_to_the_best_weights():
    stopped, best, free = network(), network(), network()
    report = train(stopped, settings(callbacks=[STOP]), data=noise(), quiet=True)
    assert 3 <= len(report.history) < 30
    count = len(report.history) - 2
    train(best, settings(callbacks=[{"callback": "stop_after", "epochs": count}]), data=noise(), quiet=True,
          plugins=with_plugin())  # fmt: skip
    for name, tensor in best.state_dict().items():
        assert torch.equal(stopped.state_dict()[name], tensor), name
    whole = train(free, settings(), data=noise(), quiet=True)
    assert report.after["logits_loss"] < whole.after["logits_loss"]


def test_a_resumed_run_goes_on_counting_the_times_without_improvement(tmp_path, monkeypatch):
    whole, cut = network(), network()
    train_settings = settings(callbacks=[STOP])
    report = train(whole, train_settings, data=noise(), quiet=True)

    def interrupt(self, args, state, control, **kwargs):
        if state.epoch > len(report.history) - 1:
            raise KeyboardInterrupt

    run = {"data": noise(), "quiet": True, "output_dir": tmp_path / "run", "checkpoints": True}
    with monkeypatch.context() as patched:
        patched.setattr(ProgressCallback, "on_step_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(cut, train_settings, **run)
    resumed = network()
    assert len(train(resumed, train_settings, resume=True, **run).history) == len(report.history)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


class Counting(TrainerCallback):
    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.arguments = {"logging_strategy": "steps", "logging_steps": every}


def nothing() -> None:
    pass


class Offering:
    @hookimpl
    def surgeon_callbacks(self):
        return {"counting": Counting, "stop_after": StopAfter, "wrong": nothing}


def with_plugin():
    plugins = load(installed=False)
    plugins.register(Offering(), "offering")
    return plugins


def test_a_plugins_callback_is_made_with_its_settings_and_sets_defaults_of_the_arguments():
    train_settings = settings(epochs=2, callbacks=[{"callback": "counting", "every": 2}])
    assert len(train(network(), train_settings, data=noise(), quiet=True, plugins=with_plugin()).history) == 2
    train_settings = settings(epochs=2, callbacks=["counting"])
    assert len(train(network(), train_settings, data=noise(), quiet=True, plugins=with_plugin()).history) == 4
    train_settings = settings(epochs=2, callbacks=["counting"], arguments={"logging_steps": 4})
    assert len(train(network(), train_settings, data=noise(), quiet=True, plugins=with_plugin()).history) == 1


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("early_stoping", r"unknown callback 'early_stoping' .*\n.*nearest: early_stopping"),
        ({"callback": "early_stopping", "patienc": 2}, r"unexpected keyword argument 'patienc'\n.*nearest: patience"),
        ({"callback": "early_stopping", "patience": 0}, "an integer of at least 1"),
        (
            {"callback": "early_stopping", "metric": "logit_loss"},
            r"unknown metric 'logit_loss'\n.*nearest: logits_loss",
        ),
        ("wrong", "not a TrainerCallback"),
    ],
)
def test_a_callback_that_cannot_be_is_refused_with_the_nearest_name(callback, message):
    with pytest.raises(TrainingError, match=message):
        train(network(), settings(callbacks=[callback]), data=noise(), quiet=True, plugins=with_plugin())


def test_a_mistyped_callback_is_reported_with_its_line_before_anything_is_loaded(tmp_path, capfd):
    (tmp_path / "r.yaml").write_text(
        "operations: [{op: freeze, all_but: head}]\ntrain:\n  data: {source: digits}\n  callbacks:\n"
        "    - {callback: early_stopping, patience: 3}\n    - erly_stopping\n"
    )
    assert cli.run(["apply", str(tmp_path / "r.yaml"), "torchvision/absent"]) == 3
    err = capfd.readouterr().err
    assert "r.yaml:6:7" in err
    assert "nearest: early_stopping" in err


class Domains(nn.Module):
    """A class and a domain output, and a strength that a schedule sets."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.logits, self.domain = nn.Linear(4, 2), nn.Linear(4, 2)
        self.register_buffer("strength", torch.tensor(0.0))

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        return Outputs(logits=self.logits(pixel_values), domain=self.domain(pixel_values))


def test_progress_tells_each_loss_the_schedule_the_domain_accuracy_and_the_pace():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    columns = Columns(pixel_values=x, labels=(x[:, 0] > 0).long(), domain=(x[:, 1] > 0).long())
    reports: list[dict[str, float]] = []
    report = train(
        Domains(),
        settings(epochs=20),
        objectives=[Objective(output="logits"), Objective(output="domain", label="domain")],
        schedules=[Schedule(buffer="strength", kind="linear", peak=2.0)],
        data=Splits(columns, columns),
        progress=lambda step, steps, numbers: reports.append(numbers),
    )
    assert {"loss", "logits_loss", "domain_loss", "domain_accuracy", "strength", "samples_per_second"} <= set(
        reports[0]
    )
    assert reports[0]["loss"] == pytest.approx(reports[0]["logits_loss"] + reports[0]["domain_loss"])
    assert reports[0]["strength"] == 0
    assert reports[-1]["strength"] == pytest.approx(2.0 * 79 / 80)
    assert reports[-1]["domain_accuracy"] > 0.9
    assert reports[-1]["samples_per_second"] > 0
    assert report.history[-1]["domain_accuracy"] > 0.9
    shown = in_words({"loss": 0.5, "logits_loss": 0.3, "domain_loss": 0.2, "domain_accuracy": 0.61, "trunk.λ": 0.4629,
                      "samples_per_second": 1234.5})  # fmt: skip
    assert shown == "loss 0.500 · logits 0.300 · domain 0.200, 61 % · λ 0.463 · 1,234 samples/s"
