"""Class weights, samplers, mixing, averages, views, rates and baselines: each key of ``train:`` does what it says."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small import Pictures, Plain, X, Y, by_sgd, difference, make, splits
from torch.nn import functional as F
from torchvision.transforms import v2
from transformers import ViTConfig, ViTForImageClassification

from surgeon.data.columns import Columns
from surgeon.data.combine import DOMAIN
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import OptimizerSettings, TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.batch_mixes import Mixing
from surgeon.training.losses import bce, cross_entropy
from surgeon.training.objectives import Target
from surgeon.training.options import LossOptions
from surgeon.training.rates import GENTLE, USUAL, for_baseline, resolved
from surgeon.training.samplers import make_sampler
from surgeon.training.session import train
from surgeon.training.test_views import TestViews
from surgeon.training.trainer import ObjectiveTrainer

RARE = torch.tensor([0] * 36 + [1] * 9 + [2] * 3)
SQUARES = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(3))
CLASSES = Target(Objective(output="logits"), cross_entropy)


def options(given: object, labels: torch.Tensor = RARE, classes: int = 3, **config: object) -> list[float]:
    settings = TrainSettings.model_validate({"class_weights": given})
    model = make()
    model.config = type("Config", (), config)()
    made = LossOptions(settings, splits(X, labels), model, {"logits": torch.zeros(2, classes)})
    return made(Objective(output="logits"), cross_entropy)["weight"]


def test_balanced_class_weights_are_the_inverse_of_how_often_a_class_occurs():
    assert options("balanced") == pytest.approx([48 / (3 * 36), 48 / (3 * 9), 48 / (3 * 3)])
    labels = RARE.clone()
    labels[:18] = -100
    assert options("balanced", labels) == pytest.approx([30 / (3 * 18), 30 / (3 * 9), 30 / (3 * 3)])


def test_class_weights_by_name_are_those_of_the_classes():
    names = {0: "cat", 1: "dog", 2: "owl"}
    assert options({"owl": 3}, id2label=names) == [1, 1, 3]
    with pytest.raises(TrainingError, match=r"unknown class 'owk'.*\n.*nearest: owl"):
        options({"owk": 3}, id2label=names)
    with pytest.raises(TrainingError, match="have no names"):
        options({"owl": 3})


@pytest.mark.parametrize("given", [[1.0, 2.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
def test_class_weights_that_do_not_go_with_the_classes_are_refused(given):
    with pytest.raises(TrainingError, match="class weights"):
        options(given)


def test_balanced_questions_weigh_a_yes_by_how_rare_it_is():
    labels = torch.zeros(48, 2)
    labels[:12, 0] = 1
    settings = TrainSettings(class_weights="balanced")
    made = LossOptions(settings, splits(X, labels), make(), {"logits": torch.zeros(2, 2)})
    assert made(Objective(output="logits", loss="bce"), bce)["pos_weight"] == [3, 1]


def test_a_balanced_sampler_draws_each_class_alike_and_the_same_in_a_resumed_epoch():
    data = splits(X.repeat(40, 1), RARE.repeat(40)).train
    sampler = make_sampler("balanced", data, [CLASSES], seed=0)
    sampler.set_epoch(3)
    drawn = list(sampler)
    counts = torch.bincount(RARE.repeat(40)[drawn]) / len(drawn)
    assert counts.tolist() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert list(sampler) == drawn
    sampler.set_epoch(4)
    assert list(sampler) != drawn


def test_a_sampler_by_domain_draws_each_domain_alike():
    data = Columns(**{"x": X.repeat(40, 1), "labels": Y.repeat(40), DOMAIN: (torch.arange(1920) < 200).long()})
    drawn = list(make_sampler("domains", data, [CLASSES], seed=0))
    assert data.columns[DOMAIN][drawn].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_training_draws_by_the_sampler_that_the_recipe_names(monkeypatch):
    seen = []
    compute = ObjectiveTrainer.compute_loss

    def note(self, model, inputs, *args, **kwargs):
        if model.training:
            seen.extend(inputs["labels"].tolist())
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(ObjectiveTrainer, "compute_loss", note)
    train(make(), by_sgd(epochs=20, batch_size=16, sampling="balanced"), data=splits(X, RARE), quiet=True)
    assert (torch.bincount(torch.tensor(seen)) / len(seen)).tolist() == pytest.approx([1 / 3] * 3, abs=0.06)


def test_a_sampler_by_what_the_data_lack_is_refused():
    with pytest.raises(TrainingError, match="sampling: domains needs domains"):
        train(make(), by_sgd(sampling="domains"), data=splits(), quiet=True)


def mixing(**how: float) -> tuple[Mixing, dict[str, torch.Tensor]]:
    settings = TrainSettings.model_validate({"mix": how}).mix
    batch = {"pixel_values": SQUARES, "labels": Y.clone()}
    assert settings is not None
    return Mixing(settings, [CLASSES], {"logits": torch.zeros(48, 3)}, batch, seed=0), batch


def test_mixup_mixes_pictures_and_labels_by_the_same_share():
    mixed, batch = mixing(mixup=0.4)
    made = mixed(batch, "0")
    share = made["labels"].max(1).values[made["labels"].max(1).values < 1][0].item()
    partners = SQUARES.roll(1, 0)
    expected = [share * SQUARES + (1 - share) * partners, (1 - share) * SQUARES + share * partners]
    assert min((made["pixel_values"] - picture).abs().max().item() for picture in expected) < 1e-5
    assert torch.allclose(made["labels"].sum(1), torch.ones(48))
    assert torch.equal(mixed(batch, "0")["pixel_values"], made["pixel_values"]), "a resumed run mixes alike"
    assert not torch.equal(mixed(batch, "1")["pixel_values"], made["pixel_values"])


def test_samples_without_a_label_are_not_mixed():
    mixed, batch = mixing(cutmix=1.0)
    batch["labels"][::2] = -100
    made = mixed(batch, "0")
    assert torch.equal(made["pixel_values"][::2], SQUARES[::2])
    assert made["labels"][::2].isnan().all()
    assert not CLASSES.labelled(made)[::2].any()


def test_training_with_mixed_pictures_learns_soft_labels(monkeypatch):
    seen = []
    call = Mixing.__call__
    monkeypatch.setattr(Mixing, "__call__", lambda self, batch, key: seen.append(call(self, batch, key)) or seen[-1])
    model = make(Pictures)
    reference = copy.deepcopy(model)
    data = splits(SQUARES, Y, "pixel_values")
    train(model, by_sgd(epochs=2, mix={"mixup": 0.3, "cutmix": 1.0}), data=data, quiet=True)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    for batch in seen:
        optimizer.zero_grad()
        F.cross_entropy(reference(batch["pixel_values"]), batch["labels"]).backward()
        optimizer.step()
    assert len(seen) == 2
    assert difference(model, reference) < 1e-6


def test_mixing_what_are_no_pictures_is_refused():
    with pytest.raises(TrainingError, match="no pictures to mix"):
        train(make(), by_sgd(mix={"mixup": 0.2}), data=splits(), quiet=True)


def test_an_exponential_average_takes_the_place_of_the_weights():
    model = make(Pictures)
    reference, average = copy.deepcopy(model), copy.deepcopy(model)
    data = splits(SQUARES, Y, "pixel_values")
    report = train(model, by_sgd(epochs=12, average={"kind": "ema", "decay": 0.4}), data=data, quiet=True)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    for step in range(12):
        optimizer.zero_grad()
        F.cross_entropy(reference(SQUARES), Y).backward()
        optimizer.step()
        decay = min(0.4, (1 + step) / (10 + step)) if step else 0.0
        with torch.no_grad():
            for mean, value in zip(average.parameters(), reference.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * value)
    assert difference(model, average) < 1e-6
    assert difference(model, reference) > 1e-4
    assert report.after["logits_loss"] == pytest.approx(F.cross_entropy(average(SQUARES), Y).item(), abs=1e-5)


def test_the_mean_of_late_epochs_replaces_the_weights_and_norms_are_measured_again():
    model = make()
    reference = copy.deepcopy(model)
    train(model, by_sgd(epochs=8, average={"kind": "swa", "start": 0.75}), data=splits(), quiet=True)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    late = []
    for epoch in range(8):
        reference.train()
        optimizer.zero_grad()
        F.cross_entropy(reference(X), Y).backward()
        optimizer.step()
        if epoch + 1 >= 6:
            late.append([parameter.detach().clone() for parameter in reference.parameters()])
    for value, *parts in zip(model.parameters(), *late, strict=True):
        torch.testing.assert_close(value, torch.stack(parts).mean(0))
    features = model.a(X)
    torch.testing.assert_close(model.n.running_mean, features.mean(0))
    torch.testing.assert_close(model.n.running_var, features.var(0))


def test_an_averaged_run_is_resumed_to_the_same_average(tmp_path):
    whole, cut = make(), make()
    train_settings = by_sgd(epochs=4, average={"kind": "ema", "decay": 0.5})
    train(whole, train_settings, data=splits(), quiet=True)
    run = {"data": splits(), "output_dir": tmp_path, "checkpoints": True}

    def stop(step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, train_settings, progress=stop, **run)
    cut = make()
    train(cut, train_settings, quiet=True, resume=True, **run)
    assert difference(whole, cut) == 0


def test_views_average_probabilities():
    network = make(Pictures)
    views = TestViews(["plain", "flip"], {"logits": "classes"})
    output = views(lambda batch: {"logits": network(batch["pixel_values"])}, {"pixel_values": SQUARES})["logits"]
    flipped = v2.functional.horizontal_flip(SQUARES)
    expected = (network(SQUARES).softmax(1) + network(flipped).softmax(1)) / 2
    torch.testing.assert_close(output.softmax(1), expected)
    yes = TestViews(["plain", "flip"], {"logits": "questions"})
    output = yes(lambda batch: {"logits": network(batch["pixel_values"])}, {"pixel_values": SQUARES})["logits"]
    torch.testing.assert_close(output.sigmoid(), (network(SQUARES).sigmoid() + network(flipped).sigmoid()) / 2)


def test_what_is_measured_goes_over_the_views_and_training_does_not():
    data = splits(SQUARES, Y, "pixel_values")
    plain, viewed = make(Pictures), make(Pictures)
    train(plain, by_sgd(epochs=2), data=data, quiet=True)
    report = train(viewed, by_sgd(epochs=2, test_views=["plain", "flip", "crops"]), data=data, quiet=True)
    assert difference(plain, viewed) == 0
    single = F.cross_entropy(plain(SQUARES), Y).item()
    assert not math.isclose(report.after["logits_loss"], single, rel_tol=1e-3)


def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=8,
            patch_size=4,
            num_channels=1,
            num_labels=3,
        )
    )


def test_trained_attention_goes_on_gently_and_what_is_new_at_the_usual_rate():
    model = vit()
    settings = resolved(TrainSettings(), model, Anatomy(model, None))
    assert (settings.learning_rate, settings.warmup) == (GENTLE, 0.1)
    assert resolved(TrainSettings(), model, Anatomy(model, None), fresh=True).learning_rate == USUAL
    model.vit.requires_grad_(False)
    settings = resolved(TrainSettings(), model, Anatomy(model, None))
    assert (settings.learning_rate, settings.warmup) == (USUAL, 0.0)
    assert resolved(TrainSettings(learning_rate=0.5), model, Anatomy(model, None)).learning_rate == 0.5
    assert resolved(TrainSettings(), make(Plain), Anatomy(make(Plain), None)).learning_rate == USUAL


def test_the_warm_up_reaches_the_optimizer():
    report = train(make(), by_sgd(epochs=10, warmup=0.5, arguments={"logging_steps": 1, "logging_strategy": "steps",
                   "lr_scheduler_type": "constant_with_warmup"}), data=splits(), quiet=True)  # fmt: skip
    assert [entry["learning_rate"] for entry in report.history][:6] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])


def test_a_rate_is_found_by_a_range_test_that_leaves_no_trace():
    model, fixed = make(), make()
    report = train(model, by_sgd(epochs=4, learning_rate="find"), data=splits(), quiet=True)
    assert 1e-4 < report.learning_rate < 1
    train(fixed, by_sgd(epochs=4, learning_rate=report.learning_rate), data=splits(), quiet=True)
    assert difference(model, fixed) == 0


def test_a_baseline_has_one_rate_and_settings_of_its_own():
    discriminative = OptimizerSettings(layer_decay=0.5, head_rate=10)
    train_settings = TrainSettings(optimizer=discriminative, baseline="scratch", features="cache", epochs=3)
    assert train_settings.compared is not None
    free = for_baseline(train_settings, train_settings.compared)
    assert (free.optimizer, free.features, free.epochs) == (OptimizerSettings(), "none", 3)
    own_settings = TrainSettings.model_validate(
        {"baseline": {"epochs": 9, "learning_rate": 0.01, "arguments": {"optim": "sgd"}}}
    )
    assert own_settings.compared is not None
    free = for_baseline(own_settings, own_settings.compared)
    assert (free.epochs, free.learning_rate, free.arguments) == (9, 0.01, {"optim": "sgd"})


def test_a_baseline_trains_by_its_own_settings():
    train_settings = by_sgd(epochs=2, optimizer=OptimizerSettings(rates={"a": 0.001}), baseline={"epochs": 5})
    report = train(make(), train_settings, data=splits(), quiet=True, baseline=make)
    alone = train(make(), by_sgd(epochs=5), data=splits(), quiet=True)
    assert report.baseline == alone.after


def test_losses_of_plugins_take_options_and_say_which_they_take():
    from surgeon.plugins import load

    class Plugin:
        from surgeon.interfaces.hooks import hookimpl

        @hookimpl
        def surgeon_losses(self):
            return {"power": lambda prediction, target, exponent=1.0: (prediction.sum(1) ** 2) * exponent}

    plugins = load(installed=False)
    plugins.register(Plugin(), "mine")
    objective = Objective.model_validate({"output": "logits", "loss": {"power": {"exponent": 3.0}}})
    report = train(make(), by_sgd(epochs=1, objectives=[objective]), data=splits(), quiet=True, plugins=plugins)
    expected = 3 * (make().eval()(X).sum(1) ** 2).mean().item()
    assert report.before["logits_loss"] == pytest.approx(expected, rel=1e-5)
    wrong = Objective.model_validate({"output": "logits", "loss": {"power": {"exponant": 3.0}}})
    with pytest.raises(TrainingError, match=r"takes no option 'exponant'.*\n.*nearest: exponent"):
        train(make(), by_sgd(objectives=[wrong]), data=splits(), quiet=True, plugins=plugins)


def test_soft_labels_are_learnt_as_probabilities():
    soft = torch.softmax(torch.randn(48, 3, generator=torch.Generator().manual_seed(0)), 1)
    data = Splits(Columns(x=X, labels=soft), Columns(x=X, labels=soft), ("x",))
    report = train(make(), by_sgd(epochs=1), data=data, quiet=True)
    assert report.before["logits_loss"] == pytest.approx(F.cross_entropy(make().eval()(X), soft).item(), abs=1e-6)
