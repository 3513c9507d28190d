"""``features: cache``: the same result as without, the trunk run once, and refusals that say why."""

from __future__ import annotations

import copy
import os
import time

import pytest
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

import surgeon
from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Stage
from surgeon.nn.outputs import Outputs
from surgeon.recipe.train_settings import Digits, TrainSettings
from surgeon.training.cache_room import cache_folder, make_room, used
from surgeon.training.features import FeatureCache
from surgeon.training.session import train

SMALL = Digits(classes=[0, 1, 2], per_class=4, canvas=8, size=32, test_fraction=0.05)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGEON_CACHE", str(tmp_path))


def settings(features: str, **changes) -> TrainSettings:
    return TrainSettings(
        **{"data": SMALL, "epochs": 3, "batch_size": 6, "learning_rate": 1e-2, "features": features, **changes}
    )


def resnet(freeze: surgeon.Operation | None = None) -> nn.Module:
    torch.manual_seed(0)
    return surgeon.apply(torchvision.models.resnet18(num_classes=3), [freeze or surgeon.Freeze(all_but="head")])


def vit() -> nn.Module:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_labels=3, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    model.vit.embeddings.requires_grad_(False)
    list(model.vit.modules())  # the blocks are found by name, which differs between versions
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layernorm" in name.split(".")[1] or name.startswith("classifier"))
    return model


class Counted:
    """Counts the samples that run through a module."""

    def __init__(self, module: nn.Module) -> None:
        self.samples = 0
        module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        self.samples += len(args[0])


@pytest.mark.filterwarnings("ignore:features. cache stores:surgeon.SurgeonWarning")
@pytest.mark.parametrize(
    "make",
    [resnet, lambda: resnet(surgeon.Freeze(up_to="layer3")), vit],
    ids=["resnet head", "resnet block", "transformer"],
)
def test_the_result_is_that_of_training_without_to_float_tolerance(make):
    plain = make()
    cached = copy.deepcopy(plain)
    one = train(plain, settings("none"), quiet=True)
    other = train(cached, settings("cache"), quiet=True)
    assert [e["loss"] for e in other.history] == pytest.approx([e["loss"] for e in one.history], rel=1e-3)
    for (name, tensor), value in zip(plain.state_dict().items(), cached.state_dict().values(), strict=True):
        torch.testing.assert_close(value, tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert list(cache_folder().glob("*.npy"))
    assert not any("forward" in module.__dict__ for module in cached.modules())


def test_what_is_frozen_runs_once_over_the_samples_and_not_at_all_the_second_time():
    first, second = resnet(), resnet()
    # 12 samples to train on; what is tried and measured is the same in both
    counts = [Counted(model.layer1[0].conv1) for model in (first, second)]
    train(first, settings("cache"), quiet=True)
    train(second, settings("cache", epochs=9), quiet=True)
    assert counts[0].samples - counts[1].samples == 12


def test_features_of_other_weights_or_other_data_are_never_taken():
    def files() -> set[str]:
        return {path.name for path in cache_folder().glob("*")}

    train(resnet(), settings("cache"), quiet=True)
    one = files()
    changed = resnet()
    with torch.no_grad():
        changed.layer1[0].bn1.running_mean += 0.5
    train(changed, settings("cache"), quiet=True)
    two = files()
    train(resnet(), settings("cache", data=SMALL.model_copy(update={"seed": 9})), quiet=True)
    three = files()
    train(resnet(), settings("cache", epochs=1, learning_rate=0.1), quiet=True)
    assert len(one) < len(two) < len(three) == len(files())


class Skips(nn.Module):
    """The head reads the input beside what the trunk made of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).requires_grad_(False)
        self.head = nn.Linear(8 + 48, 2)

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        return Outputs(logits=self.head(torch.cat([self.trunk(pixel_values), pixel_values.flatten(1)], 1)))


class Hidden(Skips):
    """Dropout without a module of its own."""

    def forward(self, pixel_values: torch.Tensor) -> Outputs:
        features = nn.functional.dropout(self.trunk[0](pixel_values), 0.5, self.training)
        return Outputs(
            logits=self.head[:, 0] if False else nn.functional.linear(self.trunk[1](features), self.head.weight[:, :8])
        )


def noise() -> Splits:
    x = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return Splits(
        Columns(pixel_values=x, labels=torch.arange(12) % 2), Columns(pixel_values=x, labels=torch.arange(12) % 2)
    )


def dropping() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 8).requires_grad_(False), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Skips, "depends on more of the frozen part than"),
        (dropping, "frozen before 1, which is random"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), "frozen before 1, which is trained"),
        (Hidden, "is random in training"),
    ],
    ids=["a skip", "dropout", "nothing frozen", "hidden dropout"],
)
def test_where_it_would_not_be_the_same_it_is_refused_with_the_reason(make, message):
    with pytest.raises(TrainingError, match=message):
        train(make(), settings("cache", data=None), data=noise(), quiet=True)


def test_varied_samples_and_parts_that_wait_are_refused(tmp_path):
    from PIL import Image

    for kind in "abc":
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / kind / f"{number}.png")
    data = {"source": "images", "path": str(tmp_path / "images"), "pixels": {"size": 32, "augment": ["flip"]}}
    with pytest.raises(TrainingError, match="samples vary between epochs"):
        train(resnet(), settings("cache", data=data), quiet=True)
    part = resnet(surgeon.Freeze(up_to="layer3"))
    with pytest.raises(TrainingError, match="unfrozen later"):
        train(part, settings("cache"), stages=[Stage(epoch=1, sites=["fc"])], quiet=True)


def test_branches_above_the_site_train_and_the_baseline_from_scratch_is_not_cached():
    torch.manual_seed(0)
    tasks = {"other": {"classes": 3, "label": "labels"}}
    made = [surgeon.Multitask(tasks=tasks), surgeon.Freeze(all_but="head")]
    model = surgeon.apply(torchvision.models.resnet18(num_classes=3), made)
    report = train(
        model,
        settings("cache", baseline="scratch", epochs=1),
        objectives=[Objective(output="other", label="labels")],
        baseline=lambda: copy.deepcopy(model).requires_grad_(True),
        quiet=True,
    )
    assert set(report.baseline) == set(report.after)


def test_what_was_used_the_longest_ago_goes_when_the_cache_is_full(monkeypatch):
    folder = cache_folder()
    folder.mkdir(parents=True)
    for age, name in ((100, "old-0"), (100, "old-1"), (10, "recent-0"), (50, "reused-0"), (50, "reused-1")):
        (folder / f"{name}.npy").write_bytes(bytes(1000))
        os.utime(folder / f"{name}.npy", (time.time() - age,) * 2)
    (folder / ".dead-0.npy.77").write_bytes(bytes(10))
    os.utime(folder / ".dead-0.npy.77", (0, 0))
    used([folder / "reused-0.npy"])
    monkeypatch.setenv("SURGEON_CACHE_GB", "0.000005")
    make_room(500)
    assert {path.name for path in folder.iterdir()} == {"recent-0.npy", "reused-0.npy", "reused-1.npy"}
    make_room(3000)
    assert {path.name for path in folder.iterdir()} == {"reused-0.npy", "reused-1.npy"}
    with pytest.raises(TrainingError, match=r"only 5e-06 GB may be kept\n.*SURGEON_CACHE_GB"):
        make_room(5001)
    assert len(list(folder.iterdir())) == 2, "nothing goes for what cannot be kept"
    monkeypatch.setenv("SURGEON_CACHE_GB", "much")
    with pytest.raises(TrainingError, match="a number of gigabytes"):
        make_room(1)


def test_features_that_are_used_again_are_younger_than_others():
    train(resnet(), settings("cache", epochs=1), quiet=True)
    files = list(cache_folder().glob("*.npy"))
    for path in files:
        os.utime(path, (0, 0))
    train(resnet(), settings("cache", epochs=1), quiet=True)
    assert all(path.stat().st_mtime > 0 for path in files)


def bert(dropout: float) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, num_labels=2,
        classifier_dropout=0.0,
    )  # fmt: skip
    return surgeon.apply(BertForSequenceClassification(config), [surgeon.Freeze(all_but="head")])


def sentences() -> Splits:
    tokens = torch.randint(5, 40, (12, 8), generator=torch.Generator().manual_seed(0))
    columns = {"input_ids": tokens, "labels": torch.arange(12) % 2}
    return Splits(Columns(**columns), Columns(**columns), inputs=("input_ids",))


def test_dropout_of_a_frozen_trunk_is_off_so_that_the_trunk_is_cached():
    model, plain = bert(0.3), bert(0.0)
    counted = Counted(model.bert.encoder.layer[1].output.dense)
    report = train(model, settings("cache", data=None, epochs=9), data=sentences(), quiet=True)
    assert counted.samples < 9 * 12, "measured, tried and stored, and in no step of training"
    other = train(plain, settings("none", data=None, epochs=9), data=sentences(), quiet=True)
    assert [e["loss"] for e in report.history] == pytest.approx([e["loss"] for e in other.history], rel=1e-3)
    assert report.after["logits_loss"] == pytest.approx(other.after["logits_loss"], rel=1e-3)


def test_the_dropout_of_a_head_stays_random():
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Dropout(0.5), nn.Linear(8, 8)).requires_grad_(False)
    model = nn.Sequential(trunk, nn.Dropout(0.5), nn.Linear(8, 2))
    cache = FeatureCache(model, noise())
    assert cache.site == "0"
    assert cache.frozen == ["0"]


def test_a_cache_that_saves_little_says_so():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.LayerNorm(8), nn.Linear(8, 64), nn.Linear(64, 2))
    for part in (model[1], model[3]):
        part.requires_grad_(False)
    with pytest.warns(surgeon.SurgeonWarning, match="60 % of the frozen parameters run in every step, after 2, which"):
        FeatureCache(model, noise())
