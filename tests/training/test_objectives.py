from __future__ import annotations

from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn

import surgeon
from surgeon.errors import PluginError, TrainingError
from surgeon.interfaces.operation import training_requests
from surgeon.interfaces.training import Objective
from surgeon.nn.progressive import ProgressiveNetwork
from surgeon.training.calls import Call, named_outputs
from surgeon.training.losses import surgeon_losses
from surgeon.training.objectives import Target, default_objectives, masked_mean, prepare

LOSSES = {name: loss for name, loss in surgeon_losses().items() if name not in ("next_token", "masked", "detection")}
LOGITS = torch.zeros(2, 3, requires_grad=True)
FROZEN = torch.zeros(2, 3)


def target(loss: str) -> Target:
    return Target(Objective(output="logits", loss=loss), LOSSES[loss])


def labels(loss: str, *, missing: slice) -> torch.Tensor:
    if loss == "cross_entropy":
        values = torch.tensor([0, 2, 1, 0])
        values[missing] = -100
    else:
        values = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
        values[missing] = float("nan")
    return values


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_missing_label_contributes_nothing(loss):
    prediction = torch.randn(4, 3, requires_grad=True)
    some = {"labels": labels(loss, missing=slice(2, 4))}
    value = masked_mean(*target(loss).losses({"logits": prediction}, some))
    value.backward()
    assert prediction.grad[:2].abs().sum() > 0
    assert prediction.grad[2:].abs().sum() == 0
    rest = masked_mean(*target(loss).losses({"logits": prediction[:2]}, {"labels": some["labels"][:2]}))
    torch.testing.assert_close(value, rest)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_batch_without_any_label_gives_a_zero_that_still_has_a_gradient(loss):
    prediction = torch.randn(4, 3, requires_grad=True)
    value = masked_mean(*target(loss).losses({"logits": prediction}, {"labels": labels(loss, missing=slice(None))}))
    assert value.item() == 0
    value.backward()
    assert prediction.grad.eq(0).all()


def test_a_loss_that_returns_one_number_is_refused():
    scalar = Target(Objective(output="logits", loss="mine"), lambda p, t: p.mean())
    with pytest.raises(PluginError, match=r"'mine' .*shape \(\).*expected a tensor of shape \(2,\)"):
        scalar.losses({"logits": LOGITS}, {"labels": torch.zeros(2, dtype=torch.long)})


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (LOGITS, ["logits"]),
        (OrderedDict(out=LOGITS, aux=LOGITS), ["out", "aux"]),
        (namedtuple("Inception", "logits aux_logits")(LOGITS, None), ["logits"]),
        ((LOGITS, LOGITS), ["0", "1"]),
    ],
)
def test_every_form_of_output_becomes_tensors_by_name(output, names):
    assert list(named_outputs(output)) == names


@pytest.mark.parametrize(
    ("outputs", "given", "expected"),
    [
        (["logits"], [], ["logits"]),
        (["anything"], [], ["anything"]),
        (["out", "aux"], [], ["out", "aux"]),
        (["logits", "domain"], ["domain"], ["logits"]),
        (["logits", "domain"], ["domain", "logits"], []),
        (["species", "colour"], ["species", "colour"], []),
        (["logits frozen", "second"], [], ["second"]),
        (["logits frozen", "second"], ["second"], []),
    ],
)
def test_the_models_own_prediction_is_trained_unless_something_already_does(outputs, given, expected):
    tensors = {name.split()[0]: FROZEN if "frozen" in name else LOGITS for name in outputs}
    objectives = default_objectives(tensors, [Objective(output=name) for name in given])
    assert [objective.output for objective in objectives] == expected


def test_several_outputs_without_an_objective_must_be_named():
    with pytest.raises(TrainingError, match="species, colour"):
        default_objectives({"species": LOGITS, "colour": LOGITS}, [])


def test_a_model_whose_outputs_have_no_gradient_is_refused():
    with pytest.raises(TrainingError, match=r"no gradient reaches an output \(task1, task2\)"):
        default_objectives({"task1": FROZEN, "task2": FROZEN}, [])


def test_an_output_without_a_gradient_may_be_measured_but_not_trained():
    batch = {"labels": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(TrainingError, match="no gradient reaches the output 'task1'"):
        prepare([Objective(output="task1")], LOSSES, {"task1": FROZEN}, batch, {})
    assert len(prepare([Objective(output="task1", weight=0)], LOSSES, {"task1": FROZEN}, batch, {})) == 1


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"output": "logit"}, "unknown output 'logit'"),
        ({"output": "logits", "loss": "cross_entropie"}, "unknown loss 'cross_entropie'"),
        ({"output": "logits", "label": "label"}, "unknown label 'label'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(objective, message):
    batch = {"labels": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(TrainingError, match=message) as caught:
        prepare([Objective(**objective)], LOSSES, {"logits": LOGITS}, batch, {})
    assert "nearest: " in str(caught.value)


def test_a_head_with_other_classes_than_the_data_is_refused_with_both_numbers_and_the_fix():
    batch = {"labels": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(TrainingError, match=r"has 3 classes, but the data have 5") as caught:
        prepare([Objective(output="logits")], LOSSES, {"logits": LOGITS}, batch, {"labels": 5})
    assert "replace_head: classes: 5" in str(caught.value)


class Pair(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left - right


@pytest.mark.parametrize(("columns", "expected"), [(("right", "left"), -1.0), (("first", "second"), 1.0)])
def test_columns_are_passed_by_name_where_forward_has_the_names_and_in_order_where_not(columns, expected):
    inputs = dict(zip(columns, (torch.full((1,), 3.0), torch.full((1,), 2.0)), strict=True))
    output = Call.of(Pair(), columns)(Pair(), inputs)
    assert output["logits"].item() == expected


class Swapped(Pair):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return second - first


@pytest.mark.parametrize(("newest", "by_name"), [(Pair, True), (Swapped, False)])
def test_the_columns_of_a_progressive_network_say_how_it_is_called(newest, by_name):
    network = ProgressiveNetwork(Pair(), "old", [])
    network.columns.append(newest())
    network.laterals.append(nn.ModuleList())
    network.tasks.append("new")
    call = Call.of(network, ("right", "left"))
    assert call.by_name is by_name
    output = call(network, {"right": torch.full((1,), 3.0), "left": torch.full((1,), 2.0)})
    assert {name: value.item() for name, value in output.items()} == {"old": -1.0 if by_name else 1.0, "new": -1.0}


def test_the_one_branch_that_is_left_of_a_network_keeps_its_name():
    layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    species = {"species": {"classes": 5}}
    alone = surgeon.apply(layers, [surgeon.Multitask(tasks=species, original="drop")])
    beside = surgeon.apply(layers, [surgeon.Multitask(tasks=species)])
    batch = {"x": torch.zeros(2, 4)}
    assert isinstance(alone(batch["x"]), torch.Tensor)
    assert list(Call.of(alone, ["x"])(alone, batch)) == ["species"]
    assert list(Call.of(alone, ["x"])(torch.nn.DataParallel(alone), batch)) == ["species"], "wrapped"
    assert list(Call.of(beside, ["x"])(beside, batch)) == ["logits", "species"]


def test_a_new_column_ends_what_earlier_operations_ask_of_training():
    before = [surgeon.GradientReversal(schedule="dann"), surgeon.Multitask(tasks={"species": {"classes": 5}})]
    objectives, schedules, *_ = training_requests(before)
    assert [objective.output for objective in objectives] == ["domain", "species"]
    assert len(schedules) == 1
    objectives, schedules, *_ = training_requests([*before, surgeon.Progressive(task="new"), before[1]])
    assert [objective.output for objective in objectives] == ["new", "species"]
    assert schedules == []
