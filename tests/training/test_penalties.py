"""What conserve asks of the loop: penalties that hold what was learnt before."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from two_heads import NEW, TwoHeads, data, settings

import surgeon
from surgeon.errors import TrainingError
from surgeon.interfaces.training import Objective, Penalty
from surgeon.recipe.train_settings import Digits, TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.conservation import EWC, L2SP, FeatureMatching, LwF
from surgeon.training.session import train


def distance(model: nn.Module, start: dict[str, torch.Tensor], name: str = "trunk.0.weight") -> float:
    return (model.state_dict()[name] - start[name]).norm().item()


def conserved(*penalties: Penalty, epochs: int = 5) -> tuple[TwoHeads, dict[str, torch.Tensor], dict]:
    model = TwoHeads()
    start = copy.deepcopy(model.state_dict())
    objectives = [*NEW, Objective(output="logits", weight=0.0)]
    report = train(model, settings(epochs=epochs), objectives=objectives, penalties=penalties, data=data(), quiet=True)
    return model, start, report.history


def before_and_after(
    model: TwoHeads, start: dict[str, torch.Tensor], ask: Callable[[TwoHeads, torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    original, x = TwoHeads(), data().test.columns["pixel_values"]
    original.load_state_dict(start)
    with torch.no_grad():
        return [ask(network.eval(), x) for network in (original, model)]


def test_l2_sp_holds_parameters_to_where_they_started():
    free, start, plain = conserved()
    held, _, penalised = conserved(L2SP(weight=100.0, new_weight=0.0))
    assert distance(held, start) < 0.3 * distance(free, start)
    assert "penalty_loss" not in plain[0]
    assert penalised[-1]["penalty_loss"] > 0


def test_l2_sp_is_its_equation():
    from surgeon.training.objectives import call_of
    from surgeon.training.penalties import Run

    model = TwoHeads()
    anatomy = Anatomy(model, None)
    anatomy.kept = {name for name, _ in model.named_parameters() if not name.startswith("new")}
    run = Run(model, call_of(model, ["pixel_values"]), anatomy, {}, set(), lambda source: data(), 0)
    term = L2SP(weight=0.1, new_weight=0.01).begin(run)
    with torch.no_grad():
        model.trunk[0].weight += 2
    expected = 0.1 / 2 * 4 * 32 + 0.01 / 2 * sum(p.pow(2).sum().item() for p in model.new.parameters())
    assert term({}, {}).item() == pytest.approx(expected, rel=1e-5)


def test_lwf_keeps_the_old_output_what_it_was():
    def drift(model: TwoHeads, start: dict[str, torch.Tensor]) -> float:
        old, new = before_and_after(model, start, lambda network, x: network(x).logits.softmax(1))
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
    def drift(model: TwoHeads, start: dict[str, torch.Tensor]) -> float:
        old, new = before_and_after(model, start, lambda network, x: network.trunk(x))
        return ((new - old).pow(2).sum() / old.pow(2).sum()).item()

    free, held = conserved(epochs=20), conserved(FeatureMatching(weight=10.0, sites=["trunk"]), epochs=20)
    assert drift(*held[:2]) < 0.5 * drift(*free[:2])
    assert held[2][0]["penalty_loss"] > 0
    assert not any(module._forward_hooks for module in held[0].modules())


def test_feature_matching_is_its_equation():
    from surgeon.training.objectives import call_of
    from surgeon.training.penalties import Run

    model, x = TwoHeads().eval(), data().test.columns["pixel_values"]
    run = Run(model, call_of(model, ["pixel_values"]), Anatomy(model, None), {}, set(), lambda source: data(), 0)
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
    penalty = term(outputs, {"pixel_values": x})
    assert penalty.item() == pytest.approx(3.0 / 2 * sum(part.item() for part in parts) / 2, rel=1e-4)
    run.ending.close()
    assert not model.trunk[0]._forward_hooks


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (FeatureMatching(weight=1.0, sites=["nothing"]), "no module matches"),
        (LwF(weight=1.0, output="logit", temperature=2.0), "keep the old head next to the new one"),
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


def test_a_new_head_is_not_conserved():
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
    with pytest.raises(ValueError, match=r"not a setting of|needs data|greater than"):
        surgeon.Conserve(**fields)


def test_the_anchor_is_stored_once_for_all_penalties():
    starts = []

    class Look(Penalty):
        def begin(self, run):
            starts.append(run.start)
            return lambda outputs, batch: outputs["new"].sum() * 0

    conserved(Look(), LwF(weight=1.0, output="logits", temperature=2.0), Look(), epochs=1)
    assert starts[0] is starts[1]
