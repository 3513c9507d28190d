"""What settings and operations ask of the loop beside losses: task weights, rates, waiting parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from transformers import BertConfig, BertForSequenceClassification
from two_heads import BOTH, TwoHeads, data, settings

from surgeon.errors import TrainingError
from surgeon.interfaces.training import Objective, Stage
from surgeon.recipe.train_settings import OptimizerSettings, TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.parameter_groups import parameter_groups, rate_factors
from surgeon.training.session import train
from surgeon.training.stages import Unfreezing


def test_the_labels_of_each_task_are_counted_and_a_task_without_any_changes_nothing():
    report = train(TwoHeads(), settings(), objectives=BOTH, data=data(missing=0.5), quiet=True)
    labels = (data(missing=0.5).train.columns["other"] != -100).sum().item()
    assert 0 < labels < 32
    assert [entry["new_labels"] for entry in report.history] == [labels] * 2
    assert [entry["logits_labels"] for entry in report.history] == [32, 32]
    model = TwoHeads()
    before = copy.deepcopy(model.new.state_dict())
    report = train(model, settings(), objectives=BOTH, data=data(missing=1.1), quiet=True)
    assert all(entry["new_loss"] == 0 for entry in report.history)
    for name, tensor in model.new.state_dict().items():
        assert torch.equal(tensor, before[name]), "AdamW moves nothing by a gradient of zero without decay"


def test_uncertainty_weighs_a_noisy_task_down_and_its_parameters_are_not_the_models():
    model = TwoHeads()
    report = train(
        model, settings(task_weights="uncertainty", epochs=20, learning_rate=3e-2), objectives=BOTH,
        data=data(200, noise=0.9), quiet=True,
    )  # fmt: skip
    last = report.history[-1]
    assert last["new_weight"] < 0.6 * last["logits_weight"]
    assert set(model.state_dict()) == set(TwoHeads().state_dict())


def test_uncertainty_is_equation_10_of_kendall():
    from surgeon.training.losses import surgeon_losses
    from surgeon.training.objectives import Target
    from surgeon.training.task_weights import UncertaintyWeights

    losses = surgeon_losses()
    targets = [Target(Objective(output=loss, loss=loss), losses[loss]) for loss in ("mse", "cross_entropy")]
    weights = UncertaintyWeights(targets, torch.device("cpu"))
    sigma = torch.tensor([2.0, 0.5])
    weights.log_variances.data = (sigma**2).log()
    some, none = torch.tensor(True), torch.tensor(False)
    total = weights.weigh(0, torch.tensor(3.0), some) + weights.weigh(1, torch.tensor(5.0), some)
    expected = 3 / (2 * sigma[0] ** 2) + 5 / sigma[1] ** 2 + sigma.log().sum()
    torch.testing.assert_close(total, expected)
    empty = weights.weigh(0, torch.tensor(0.0), none)
    assert torch.autograd.grad(empty, weights.log_variances)[0].tolist() == [0, 0]


# ---- rates


def test_each_block_learns_slower_than_the_one_behind_it_and_norms_do_not_decay():
    model = resnet18(num_classes=3)
    model.conv1.requires_grad_(False)
    chosen = OptimizerSettings(layer_decay=0.5, head_rate=10, rates={"layer1.0": 0.1})
    factors = rate_factors(model, chosen, Anatomy(model, None))
    assert factors["fc.weight"] == 10
    assert factors["layer4.1.conv1.weight"] == 0.5
    assert factors["layer4.0.conv1.weight"] == 0.25
    assert factors["layer1.1.conv1.weight"] == 0.5**7
    assert factors["layer1.0.conv1.weight"] == pytest.approx(0.1 * 0.5**8)
    assert factors["bn1.weight"] == 0.5**9
    groups = parameter_groups(model, chosen, factors, rate=0.1, decay=0.01)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == sum(p.requires_grad for p in model.parameters())
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.01) for p in group["params"])
    assert groups[0]["lr"] == pytest.approx(1.0)


def test_a_transformers_embeddings_are_slowest_and_its_pooler_fast():
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    factors = rate_factors(model, OptimizerSettings(layer_decay=0.5), Anatomy(model, None))
    assert factors["bert.embeddings.word_embeddings.weight"] == 0.5**4
    assert factors["bert.encoder.layer.0.attention.self.query.weight"] == 0.5**3
    assert factors["bert.pooler.dense.weight"] == factors["classifier.weight"] == 1


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [({"rates": {"trnk": 0.1}}, "nearest: trunk"), ({"layer_decay": 0.5}, "needs blocks")],
)
def test_rates_that_go_by_nothing_are_refused(optimizer, message):
    with pytest.raises(TrainingError, match=message):
        train(TwoHeads(), settings(optimizer=optimizer), objectives=BOTH, data=data(), quiet=True)


def test_a_rate_moves_its_part_by_that_much():
    def moved(rate: float) -> float:
        model = TwoHeads()
        before = model.trunk[0].weight.clone()
        optimizer = {"rates": {"trunk": rate}}
        changes = settings(epochs=1, optimizer=optimizer, arguments={"max_steps": 1, "optim": "sgd"})
        changes = changes.model_copy(update={"epochs": 10})
        train(model, TrainSettings(**changes.model_dump(exclude={"epochs"})), objectives=BOTH, data=data(), quiet=True)
        return (model.trunk[0].weight - before).norm().item()

    assert moved(0.1) == pytest.approx(0.1 * moved(1.0), rel=1e-3)


# ---- unfreezing


class Watch:
    """Remembers the trunk after every epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.seen = model, []

    def __call__(self, step: int, steps: int, numbers: dict[str, float]) -> None:
        if step % 4 == 0:
            self.seen.append({name: t.clone() for name, t in self.model.state_dict().items()})


def test_a_stage_is_byte_identical_until_its_epoch_statistics_included_and_trains_then():
    model = TwoHeads()
    start = copy.deepcopy(model.state_dict())
    watch = Watch(model)
    train(
        model, settings(epochs=3, arguments={"weight_decay": 0.1}), objectives=BOTH,
        stages=[Stage(epoch=2, sites=["trunk"])], data=data(), progress=watch,
    )  # fmt: skip
    names = [name for name in start if name.startswith("trunk.")]
    assert all(torch.equal(watch.seen[1][name], start[name]) for name in names)
    assert not any(torch.equal(watch.seen[2][name], start[name]) for name in names)
    assert not torch.equal(watch.seen[0]["new.weight"], start["new.weight"])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unfreezing_keeps_the_state_of_what_trains_already_and_begins_that_of_what_joins(monkeypatch):
    steps: list[dict[str, float]] = []
    model = TwoHeads()
    made = Unfreezing.on_step_begin

    def look(self, args, state, control, **kwargs):
        made(self, args, state, control, **kwargs)
        optimizer = kwargs["optimizer"].state
        steps.append({n: optimizer[p]["step"].item() for n, p in model.named_parameters() if optimizer.get(p)})

    monkeypatch.setattr(Unfreezing, "on_step_begin", look)
    stages = [Stage(epoch=1, sites=["trunk"])]
    train(model, settings(epochs=2), objectives=BOTH, stages=stages, data=data(), quiet=True)
    assert [s.get("new.weight", 0) for s in steps] == list(range(8))
    assert [s.get("trunk.0.weight", 0) for s in steps] == [0, 0, 0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage(epoch=2, sites=["trunk"])], "would wait until epoch 2, and training ends at 2"),
        ([Stage(epoch=0.5, sites=["trunk"]), Stage(epoch=1, sites=["trunk.0"])], "is in two stages"),
        ([Stage(epoch=1, sites=["trunk", "logits", "new"])], "nothing trains at first"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(TrainingError, match=message):
        train(TwoHeads(), settings(), objectives=BOTH, stages=stages, data=data(), quiet=True)


def test_sites_of_a_later_stage_must_not_be_frozen_by_freeze():
    model = TwoHeads()
    model.trunk.requires_grad_(False)
    with pytest.raises(TrainingError, match="an operation froze it"):
        train(model, settings(), objectives=BOTH, stages=[Stage(epoch=1, sites=["trunk"])], data=data(), quiet=True)
