"""What settings and operations ask of the loop beside losses: task weights, rates, waiting parts, penalties."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from transformers import BertConfig, BertForSequenceClassification

import surgeon
from surgeon.errors import TrainingError
from surgeon.nn.outputs import Outputs
from surgeon.operation import Objective, Penalty, Stage
from surgeon.training.anatomy import Anatomy
from surgeon.training.conserving import EWC, L2SP, FeatureMatching, LwF
from surgeon.training.data import Columns, Splits
from surgeon.training.optimizing import parameter_groups, rate_factors
from surgeon.training.session import train
from surgeon.training.settings import Digits, OptimizerSettings, TrainSettings
from surgeon.training.unfreezing import Unfreezing

NAN = float("nan")


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.logits = nn.Linear(8, 2)
        self.new = nn.Linear(8, 2)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        features = self.trunk(pixel_values)
        return Outputs(logits=self.logits(features), new=self.new(features))


def data(count: int = 32, *, noise: float = 0.0, missing: float = 0.0) -> Splits:
    def split(seed: int) -> Columns:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 4, generator=generator)
        y = (x[:, 0] > 0).long()
        flipped = torch.rand(count, generator=generator) < noise
        other = torch.where(flipped, torch.randint(2, (count,), generator=generator), (x[:, 1] > 0).long())
        other[torch.rand(count, generator=generator) < missing] = -100
        return Columns(pixel_values=x, labels=y, other=other)

    return Splits(split(1), split(2))


BOTH = [Objective(output="logits"), Objective(output="new", label="other")]
NEW = [Objective(output="new", label="other")]


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-2, **changes})


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
    from surgeon.training.weighing import UncertaintyWeights

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
    [({"rates": {"trnk": 0.1}}, "nearest: trunk"), ({"layer_decay": 0.5}, "goes by the blocks")],
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


def test_what_waits_is_byte_identical_until_its_epoch_statistics_included_and_trains_then():
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
        ([Stage(epoch=0.5, sites=["trunk"]), Stage(epoch=1, sites=["trunk.0"])], "waits in two stages"),
        ([Stage(epoch=1, sites=["trunk", "logits", "new"])], "nothing trains at first"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(TrainingError, match=message):
        train(TwoHeads(), settings(), objectives=BOTH, stages=stages, data=data(), quiet=True)


def test_what_waits_must_not_be_frozen_for_good():
    model = TwoHeads()
    model.trunk.requires_grad_(False)
    with pytest.raises(TrainingError, match="frozen for good"):
        train(model, settings(), objectives=BOTH, stages=[Stage(epoch=1, sites=["trunk"])], data=data(), quiet=True)


# ---- penalties


def distance(model: nn.Module, start: dict[str, torch.Tensor], name: str = "trunk.0.weight") -> float:
    return (model.state_dict()[name] - start[name]).norm().item()


def conserved(*penalties: Penalty, epochs: int = 5) -> tuple[TwoHeads, dict[str, torch.Tensor], dict]:
    model = TwoHeads()
    start = copy.deepcopy(model.state_dict())
    objectives = [*NEW, Objective(output="logits", weight=0.0)]
    report = train(model, settings(epochs=epochs), objectives=objectives, penalties=penalties, data=data(), quiet=True)
    return model, start, report.history


def test_l2_sp_holds_parameters_to_where_they_started():
    free, start, history = conserved()
    held, _, told = conserved(L2SP(weight=100.0, new_weight=0.0))
    assert distance(held, start) < 0.3 * distance(free, start)
    assert "penalty_loss" not in history[0]
    assert told[-1]["penalty_loss"] > 0


def test_l2_sp_is_its_equation():
    from surgeon.training.objectives import Call
    from surgeon.training.penalties import Run

    model = TwoHeads()
    anatomy = Anatomy(model, None)
    anatomy.kept = {name for name, _ in model.named_parameters() if not name.startswith("new")}
    run = Run(model, Call.of(model, ["pixel_values"]), anatomy, {}, set(), lambda source: data(), 0)
    term = L2SP(weight=0.1, new_weight=0.01).begin(run)
    with torch.no_grad():
        model.trunk[0].weight += 2
    expected = 0.1 / 2 * 4 * 32 + 0.01 / 2 * sum(p.pow(2).sum().item() for p in model.new.parameters())
    assert term({}, {}).item() == pytest.approx(expected, rel=1e-5)


def test_lwf_keeps_the_old_output_what_it_was():
    def drift(model: nn.Module, start: dict[str, torch.Tensor]) -> float:
        original = TwoHeads()
        original.load_state_dict(start)
        x = data().test.columns["pixel_values"]
        with torch.no_grad():
            old, new = (each.eval()(x).logits.softmax(1) for each in (original, model))
        return (old - new).abs().mean().item()

    free, held = conserved(epochs=20), conserved(LwF(weight=20.0, output="logits", temperature=2.0), epochs=20)
    assert drift(*held[:2]) < 0.5 * drift(*free[:2])
    assert held[2][0]["penalty_loss"] >= 0


def test_ewc_holds_what_the_old_output_depends_on_and_nothing_else():
    penalty = EWC(weight=1e5, output="logits", data=Digits(), samples=16)
    model = TwoHeads()
    nn.init.zeros_(model.logits.weight[:, :4])  # the old output reads the last four features only
    start = copy.deepcopy(model.state_dict())

    class Given(EWC):
        def begin(self, run):
            run.load = lambda source: data()
            return super().begin(run)

    given = Given(**penalty.model_dump())
    train(
        model, settings(epochs=5), objectives=[*NEW, Objective(output="logits", weight=0.0)], penalties=[given],
        data=data(), quiet=True,
    )  # fmt: skip
    moved = (model.trunk[0].weight - start["trunk.0.weight"]).norm(dim=1)
    assert moved[4:].mean() < 0.3 * moved[:4].mean()


def test_feature_matching_holds_what_a_site_produces_and_leaves_nothing_in_the_network():
    def drift(model: nn.Module, start: dict[str, torch.Tensor]) -> float:
        original = TwoHeads()
        original.load_state_dict(start)
        x = data().test.columns["pixel_values"]
        with torch.no_grad():
            old, new = (each.eval().trunk(x) for each in (original, model))
        return ((new - old).pow(2).sum() / old.pow(2).sum()).item()

    free, held = conserved(epochs=20), conserved(FeatureMatching(weight=10.0, sites=["trunk"]), epochs=20)
    assert drift(*held[:2]) < 0.5 * drift(*free[:2])
    assert held[2][0]["penalty_loss"] > 0
    assert not any(module._forward_hooks for module in held[0].modules())


def test_feature_matching_is_its_equation():
    from surgeon.training.objectives import Call
    from surgeon.training.penalties import Run

    model, x = TwoHeads().eval(), data().test.columns["pixel_values"]
    run = Run(model, Call.of(model, ["pixel_values"]), Anatomy(model, None), {}, set(), lambda source: data(), 0)
    term = FeatureMatching(weight=3.0, sites=["trunk.0", "logits"]).begin(run)
    old = model.trunk[0](x).detach()
    with torch.no_grad():
        model.trunk[0].bias += 0.5
        model.trunk.add_module("3", nn.Identity())
    outputs = model(x)
    with torch.no_grad():  # what came before has been heard; these are other values
        before = model.trunk[0](x) - 0.5
        logits = model.logits(model.trunk[3](model.trunk[2](model.trunk[1](before))))
        moved = model.logits(model.trunk(x))
    model(x)
    parts = [0.25 * old.numel() / old.pow(2).sum(), (moved - logits).pow(2).sum() / logits.pow(2).sum()]
    found = term(outputs, {"pixel_values": x})
    assert found.item() == pytest.approx(3.0 / 2 * sum(part.item() for part in parts) / 2, rel=1e-4)
    run.ending.close()
    assert not model.trunk[0]._forward_hooks


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (FeatureMatching(weight=1.0, sites=["nothing"]), "no module matches"),
        (LwF(weight=1.0, output="logit", temperature=2.0), "keep the old head beside the new one"),
        (L2SP(weight=1.0, new_weight=0.0, sites=["nothing"]), "no module matches"),
    ],
)
def test_a_penalty_that_cannot_be_is_refused(penalty, message):
    with pytest.raises(TrainingError, match=message):
        train(TwoHeads(), settings(), objectives=NEW, penalties=[penalty], data=data(), quiet=True)


def test_a_conserved_output_is_not_trained_by_labels_unless_the_recipe_says_so():
    penalty = LwF(weight=1.0, output="logits", temperature=2.0)
    report = train(TwoHeads(), settings(), objectives=NEW, penalties=[penalty], data=data(), quiet=True)
    assert set(report.after) == {"new_loss", "new_accuracy"}


def test_a_new_head_is_no_old_knowledge_to_conserve():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    edited = surgeon.apply(net, [surgeon.ReplaceHead(classes=2), surgeon.Conserve(method="lwf")])
    digits = TrainSettings(data=Digits(classes=[0, 1], per_class=4, canvas=8, size=8, channels=1), epochs=1)
    penalties = surgeon.Conserve(method="lwf").penalties()
    with pytest.raises(TrainingError, match="is made by new parameters"):
        train(edited, digits, objectives=[Objective(output="logits")], penalties=penalties, quiet=True)


def test_features_that_are_frozen_or_new_are_nothing_to_conserve():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    digits = TrainSettings(data=Digits(classes=[0, 1], per_class=4, canvas=8, size=8, channels=1), epochs=1)
    for site, message in (("1", "no gradient reaches 1"), ("3", "holds new parameters")):
        conserve = surgeon.Conserve(method="features", sites=site)
        edited = surgeon.apply(net, [surgeon.ReplaceHead(classes=2), surgeon.Freeze(sites="1"), conserve])
        with pytest.raises(TrainingError, match=message):
            train(edited, digits, penalties=conserve.penalties(), quiet=True)
        assert not any(module._forward_hooks for module in edited.modules())


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "ewc"},
        {"method": "l2_sp", "temperature": 2.0},
        {"method": "lwf", "sites": "fc"},
        {"method": "features", "output": "logits"},
        {"method": "lwf", "weight": 0},
    ],
)
def test_settings_of_another_method_are_refused(fields):
    with pytest.raises(ValueError, match=r"no setting of|needs data|greater than"):
        surgeon.Conserve(**fields)


def test_the_anchor_is_stored_once_for_all_penalties():
    starts = []

    class Look(Penalty):
        def begin(self, run):
            starts.append(run.start)
            return lambda outputs, batch: outputs["new"].sum() * 0

    conserved(Look(), LwF(weight=1.0, output="logits", temperature=2.0), Look(), epochs=1)
    assert starts[0] is starts[1]
