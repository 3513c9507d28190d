"""Metrics that a recipe adds, and curves of schedules: built in, and from plugins."""

from __future__ import annotations

import math

import pytest
import torch
from small import X, Y, make, splits
from torch import nn

import surgeon
from surgeon.data.columns import Columns
from surgeon.errors import PluginError, SurgeonWarning, TrainingError
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.registered import registered
from surgeon.interfaces.training import Schedule
from surgeon.plugins import Plugins, load
from surgeon.recipe.train_settings import MetricSettings
from surgeon.training.callbacks import ScheduleCallback
from surgeon.training.further_metrics import by_output, calibration_error, make_further
from surgeon.training.schedules import surgeon_schedules
from surgeon.training.session import train


def confident(prediction, target, *, share: float = 0.5) -> float:
    return (prediction.softmax(1).max(1).values > share).float().mean().item()


def plugins_with(**metrics) -> Plugins:
    class Bundle:
        @hookimpl
        def surgeon_metrics(self):
            return metrics

    plugins = load(installed=False)
    plugins.register(Bundle(), "bundle")
    return plugins


def trained(plugins: Plugins, *metrics):
    settings = surgeon.TrainSettings(epochs=1, baseline="none", metrics=list(metrics))
    return train(make(), settings, data=splits(), quiet=True, plugins=plugins)


def test_a_metric_of_a_plugin_is_measured_on_all_test_samples_at_once():
    seen = []

    def counted(prediction, target):
        seen.append((prediction.shape, target.shape))
        return 3

    report = trained(plugins_with(counted=counted, confident=confident), "counted", {"metric": "confident", "share": 0})
    measured = report.tasks["logits"]["all"]
    assert measured["counted"] == 3
    assert measured["confident"] == 1
    assert {prediction[0] for prediction, _ in seen} == {report.test_samples}
    assert {target for _, target in seen} == {(report.test_samples,)}


def test_the_built_in_calibration_error_is_right_by_hand():
    prediction = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]]).log()
    # confidence 0.8: right in 1 of 2; confidence 0.9: right
    expected = (2 * abs(0.8 - 0.5) + abs(0.9 - 1.0)) / 3
    assert math.isclose(calibration_error(prediction, torch.tensor([0, 1, 1])), expected, rel_tol=1e-5)
    assert 0 <= trained(load(installed=False), "calibration_error").tasks["logits"]["all"]["calibration_error"] <= 1


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["confidant"], r"unknown metric 'confidant'[\s\S]*confident"),
        ([{"metric": "confident", "shear": 1}], r"the metric 'confident'[\s\S]*share"),
        (["confident", "confident"], "named twice"),
        ([{"metric": "confident", "output": "logit"}], r"names the output 'logit'[\s\S]*logits"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused_before_training(metrics, message):
    with pytest.raises(TrainingError, match=message):
        trained(plugins_with(confident=confident), *metrics)


def test_a_metric_of_what_is_not_kept_is_refused():
    further = make_further(["calibration_error"], {"calibration_error": calibration_error})
    with pytest.raises(TrainingError, match="needs all predictions at once"):
        by_output(further, {"logits": "tokens"}, {"logits": 5})


def of_rows(prediction, target):
    """A plugin's loss."""
    return (prediction.reshape(len(target), -1).mean(1) - target.reshape(len(target), -1).float().nanmean(1)) ** 2


SEEN: list[tuple[torch.Size, torch.Size, torch.dtype]] = []


def sum_of_labels(prediction, target):
    SEEN.append((prediction.shape, target.shape, target.dtype))
    return target.nansum().item()


class Grid(nn.Module):
    """A picture of 2 by 3 for each sample, beside the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.layer(x)
        return {"logits": hidden[:, :3], "grid": hidden.reshape(-1, 2, 3)}


class WithALoss:
    @hookimpl
    def surgeon_losses(self):
        return {"of_rows": of_rows}

    @hookimpl
    def surgeon_metrics(self):
        return {"sum_of_labels": sum_of_labels}


def offered() -> Plugins:
    plugins = load(installed=False)
    plugins.register(WithALoss(), "with_a_loss")
    return plugins


def with_grids(grids: torch.Tensor) -> surgeon.Splits:
    data = Columns(x=X, labels=Y, grids=grids)
    return surgeon.Splits(data, data, inputs=("x",))


@pytest.mark.parametrize("grids", [torch.rand(48, 2, 3), torch.randint(0, 5, (48, 2, 3)), torch.rand(48, 4)])
def test_a_metric_of_a_plugin_measures_an_output_behind_a_loss_of_a_plugin(grids):
    if grids.is_floating_point():
        grids[3], grids[4, 0] = torch.nan, torch.nan
    SEEN.clear()
    objectives = [
        surgeon.Objective(output="grid", loss="of_rows", label="grids"),
        surgeon.Objective(output="logits"),
    ]
    metrics = [{"metric": "sum_of_labels", "output": "grid"}]
    settings = surgeon.TrainSettings(epochs=1, baseline="none", metrics=metrics, objectives=objectives)
    report = train(make(Grid), settings, data=with_grids(grids), quiet=True, plugins=offered())
    assert report.tasks["grid"]["all"]["sum_of_labels"] == pytest.approx(grids.nansum().item())
    assert "sum_of_labels" not in report.tasks["logits"]["all"]
    kept = 47 if grids.is_floating_point() and grids.ndim == 3 else 48 - grids.is_floating_point()
    assert set(SEEN) == {(torch.Size([kept, 2, 3]), torch.Size([kept, *grids.shape[1:]]), grids.dtype)}


def test_every_output_is_measured_where_none_is_named():
    objectives = [surgeon.Objective(output="grid", loss="of_rows", label="grids"), surgeon.Objective(output="logits")]
    settings = surgeon.TrainSettings(epochs=1, baseline="none", metrics=["sum_of_labels"], objectives=objectives)
    report = train(make(Grid), settings, data=with_grids(torch.ones(48, 6)), quiet=True, plugins=offered())
    assert report.tasks["grid"]["all"]["sum_of_labels"] == 48 * 6
    assert report.tasks["logits"]["all"]["sum_of_labels"] == Y.sum().item()


def test_evaluate_measures_behind_the_loss_of_a_plugin_too():
    class Adds(Operation):
        def apply(self, model, surgery):
            return surgery.model

        def objectives(self):
            return [surgeon.Objective(output="grid", loss="of_rows", label="grids")]

    with registered(Adds):
        evaluation = surgeon.evaluate(
            surgeon.apply(make(Grid), [Adds()]),
            with_grids(torch.ones(48, 6)),
            metrics=[{"metric": "sum_of_labels", "output": "grid"}],
            part="test",
            plugins=offered(),
        )
    assert evaluation.measures["grid"]["all"]["sum_of_labels"] == 48 * 6


class OfAnyLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[..., None])[..., 0]


def test_outputs_of_several_sizes_are_refused_where_a_metric_needs_all_of_them():
    samples = [{"x": torch.ones(2 + i // 8), "labels": torch.ones(2 + i // 8)} for i in range(16)]
    data = surgeon.Splits(samples, samples, inputs=("x",))
    objectives = [surgeon.Objective(output="logits", loss="of_rows")]
    settings = surgeon.TrainSettings(
        epochs=1, batch_size=8, baseline="none", objectives=objectives, metrics=["sum_of_labels"]
    )
    with pytest.raises(TrainingError, match=r"the output 'logits' or its labels 'labels' differ in size"):
        train(OfAnyLength(), settings, data=data, quiet=True, plugins=offered())


def test_a_builtin_function_without_a_signature_serves_as_a_metric():
    (further,) = make_further([MetricSettings(metric="dist", p=1)], {"dist": torch.dist})
    assert further(torch.ones(3), torch.zeros(3)) == 3


@pytest.mark.parametrize(("result", "what"), [(None, "None"), ("high", "the str 'high'"), (torch.ones(2), "a Tensor")])
def test_a_metric_that_returns_no_number_is_refused_before_training(result, what):
    with pytest.raises(PluginError, match=rf"the metric 'odd' of .* returned {what}.*expected one number"):
        trained(plugins_with(odd=lambda prediction, target: result), "odd")


def test_a_metric_that_fails_after_training_does_not_lose_the_weights():
    calls = []

    def fails(prediction, target):
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("no more")
        return 1.0

    with pytest.warns(SurgeonWarning, match="the metric 'fails' .*no more.*not measured"):
        report = trained(plugins_with(fails=fails), "fails")
    assert math.isnan(report.tasks["logits"]["all"]["fails"])


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gate", torch.tensor(0.0))


def late(progress, *, start: float = 0.5):
    return 0.0 if progress < start else 1.0


def test_a_curve_of_a_plugin_sets_the_buffer_and_takes_options():
    model = Gate()
    schedule = Schedule(buffer="gate", kind="late", peak=4, options={"start": 0.2})
    callback = ScheduleCallback(model, [schedule], {**surgeon_schedules(), "late": late})
    callback._set(0.1)
    assert model.gate == 0
    callback._set(0.3)
    assert model.gate == 4


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"kind": "lat"}, r"unknown kind of schedule 'lat'[\s\S]*late"),
        ({"kind": "late", "options": {"begin": 1}}, r"the schedule 'late'[\s\S]*its options are: start"),
    ],
)
def test_a_schedule_that_does_not_fit_its_curve_is_refused(schedule, message):
    with pytest.raises(TrainingError, match=message):
        ScheduleCallback(Gate(), [Schedule(buffer="gate", **schedule)], {"late": late})


def test_a_curve_that_returns_no_number_is_named():
    callback = ScheduleCallback(Gate(), [Schedule(buffer="gate", kind="odd")], {"odd": lambda progress: None})
    with pytest.raises(PluginError, match=r"the schedule 'odd' at 0\.5 of .* returned None; expected a finite number"):
        callback._set(0.5)
