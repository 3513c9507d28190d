from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import shufflenet_v2_x0_5
from transformers import ViTConfig, ViTForImageClassification

from surgeon.data.columns import Columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Schedule
from surgeon.nn.frozen import freeze_norm
from surgeon.nn.outputs import Outputs
from surgeon.recipe.train_settings import Digits, TrainSettings
from surgeon.training.session import train

TINY = Digits(classes=[0, 1], per_class=20, canvas=8, size=8, channels=1)


def network(classes: int = 2, channels: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, classes),
    )


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"data": TINY, "epochs": 2, "batch_size": 10, "learning_rate": 1e-2, **changes})


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_training_learns_and_reports_what_it_did():
    model = network()
    report = train(model, settings(epochs=10), quiet=True)
    assert report.accuracy_after > 0.95 > report.accuracy_before
    assert report.trainable == sum(p.numel() for p in model.parameters())
    assert (report.train_samples, report.baseline, report.accuracy_baseline) == (40, None, None)
    assert report.seconds > 0
    assert report.samples_per_second == pytest.approx(400 / report.seconds)
    losses = [entry["loss"] for entry in report.history]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    with torch.no_grad():
        from surgeon.data.digits import load_data

        test = load_data(TINY).test.columns
        right = (model(test["pixel_values"]).argmax(1) == test["labels"]).float().mean().item()
    assert right == pytest.approx(report.accuracy_after)
    assert not model.training


def test_the_report_is_json():
    import json

    report = train(network(), settings(), quiet=True)
    assert json.loads(json.dumps(report.to_dict()))["accuracy_after"] == report.accuracy_after


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    weights = []
    for seed in (0, 0, 1):
        model = network()
        torch.rand(seed + len(weights))  # what was drawn before must not matter
        train(model, settings(), seed=seed, quiet=True)
        weights.append(state(model))
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_frozen_parameters_and_statistics_stay_byte_identical():
    torch.manual_seed(0)
    model = shufflenet_v2_x0_5(num_classes=2)
    frozen = [model.conv1, model.stage2]
    for part in frozen:
        part.requires_grad_(False)
        for norm in [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]:
            freeze_norm(norm)
    before = state(model)
    data = TINY.model_copy(update={"size": 32, "channels": 3})
    train(model, settings(data=data, epochs=1, arguments={"weight_decay": 0.1}), quiet=True)
    after = state(model)
    changed = {name for name in before if before[name] != after[name]}
    assert not {name for name in changed if name.startswith(("conv1.", "stage2."))}
    assert {"fc.weight", "stage3.0.branch2.1.running_mean"} <= changed


def test_weight_decay_leaves_biases_and_norms_alone():
    model = network()
    nn.init.ones_(model[0].bias)
    # Labels that are all missing leave weight decay as all that moves anything.
    missing = Splits(
        Columns(pixel_values=torch.randn(20, 1, 8, 8), labels=torch.full((20,), -100)),
        Columns(pixel_values=torch.randn(4, 1, 8, 8), labels=torch.zeros(4, dtype=torch.long)),
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report = train(model, settings(data=None, arguments={"weight_decay": 0.1}), data=missing, quiet=True)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"0.weight", "4.weight", "7.weight"}
    assert [entry["loss"] for entry in report.history] == [0.0, 0.0]


class TwoHeads(nn.Module):
    """A trunk with two named outputs and a scheduled buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
        self.parity = nn.Linear(16, 2)
        self.size = nn.Linear(16, 1)
        self.register_buffer("strength", torch.tensor(0.0))
        self.seen: list[float] = []

    def forward(self, x: torch.Tensor) -> Outputs:
        if self.training:
            self.seen.append(self.strength.item())
        features = self.trunk(x)
        return Outputs(parity=self.parity(features), size=self.size(features))


def two_tasks(count: int) -> Columns:
    generator = torch.Generator().manual_seed(count)
    parity = torch.randint(2, (count,), generator=generator)
    pixels = torch.randn(count, 1, 8, 8, generator=generator) + parity.view(-1, 1, 1, 1)
    size = pixels[:, 0, 0, 0].clone()
    parity[::2], size[1::2] = -100, float("nan")
    return Columns(pixel_values=pixels, parity=parity, size=size)


OBJECTIVES = [
    Objective(output="parity", label="parity"),
    Objective(output="size", label="size", loss="mse", weight=0.5),
]


def test_named_outputs_are_matched_with_named_labels_and_missing_labels_are_left_out():
    torch.manual_seed(0)
    splits = Splits(two_tasks(200), two_tasks(100), classes={"parity": 2})
    report = train(TwoHeads(), settings(data=None, epochs=20), objectives=OBJECTIVES, data=splits, quiet=True)
    assert set(report.after) == {"parity_loss", "parity_accuracy", "size_loss"}
    assert report.after["parity_accuracy"] > 0.8
    assert report.after["size_loss"] < 0.5 * report.before["size_loss"]
    last = report.history[-1]
    assert last["loss"] == pytest.approx(last["parity_loss"] + 0.5 * last["size_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"kind": "linear", "peak": 2.0}, lambda p: 2 * p),
        ({"kind": "dann", "gamma": 5.0}, lambda p: 2 / (1 + torch.exp(torch.tensor(-5 * p)).item()) - 1),
    ],
)
def test_a_schedule_sets_its_buffer_by_progress_and_leaves_it_at_the_end(schedule, expected):
    model = TwoHeads()
    train(
        model,
        settings(data=None, epochs=2),
        objectives=OBJECTIVES,
        schedules=[Schedule(buffer="strength", **schedule)],
        data=Splits(two_tasks(20), two_tasks(4)),
        quiet=True,
    )
    assert model.seen == pytest.approx([expected(step / 4) for step in range(4)])
    assert model.strength.item() == pytest.approx(expected(1.0))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"buffer": "strenght"}, "nearest: strength"),
        ({"buffer": "strength", "kind": "cosine"}, "unknown kind of schedule 'cosine'"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(schedule, message):
    with pytest.raises(TrainingError, match=message):
        train(
            TwoHeads(),
            settings(data=None),
            objectives=OBJECTIVES,
            schedules=[Schedule(**schedule)],
            data=Splits(two_tasks(20), two_tasks(4)),
            quiet=True,
        )


def test_a_transformers_model_trains_by_its_own_output_names():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=2,
    )
    report = train(ViTForImageClassification(config), settings(epochs=8), quiet=True)
    assert report.accuracy_after > 0.9


def test_accumulated_batches_are_averaged_like_one_large_batch():
    class TakesAnything(nn.Sequential):
        def forward(self, x: torch.Tensor, **kwargs: object) -> torch.Tensor:
            return super().forward(x)

    def trained(**changes) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = TakesAnything(nn.Flatten(), nn.Linear(64, 2))
        # SGD, as AdamW would divide a wrong scale out again
        arguments = {"optim": "sgd", "max_grad_norm": 0.0, **changes.pop("arguments", {})}
        train(model, settings(arguments=arguments, **changes), quiet=True)
        return model.state_dict()

    whole = trained(batch_size=20)
    parts = trained(batch_size=10, arguments={"gradient_accumulation_steps": 2})
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor)


def uneven(count: int = 32) -> Splits:
    """Labels of which every second half of sixteen has one in eight, the other all."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 1, 8, 8, generator=generator)
    parity, size = torch.randint(2, (count,), generator=generator), pixels[:, 0, 0, 0].clone()
    scarce = torch.arange(count) // 8 % 2 == 1
    parity[scarce & (torch.arange(count) % 8 != 3)] = -100
    size[~scarce] = float("nan")
    return Splits(Columns(pixel_values=pixels, parity=parity, size=size), two_tasks(8))


@pytest.mark.parametrize("weights", ["fixed", "uncertainty"])
def test_the_mean_is_over_the_labels_of_all_accumulated_batches(weights):
    def trained(**changes) -> tuple[dict[str, torch.Tensor], list]:
        torch.manual_seed(0)
        model = TwoHeads()
        arguments = {"optim": "sgd", "max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}
        arguments |= changes.pop("arguments", {})
        train_settings = settings(data=None, arguments=arguments, task_weights=weights, **changes)
        report = train(model, train_settings, objectives=OBJECTIVES, data=uneven(), quiet=True)
        return model.state_dict(), report.history

    whole, history = trained(batch_size=16)
    parts, other = trained(batch_size=8, arguments={"gradient_accumulation_steps": 2})
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor)
    for one, two in zip(history, other, strict=True):
        names = [name for name in one if name.endswith(("loss", "labels", "weight"))]
        assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names})


def test_the_baseline_is_trained_on_the_same_samples_and_leaves_the_model_alone():
    alone, compared = network(), network()
    train(alone, settings(), quiet=True)
    report = train(compared, settings(baseline="scratch"), baseline=network, quiet=True)
    assert state(alone) == state(compared)
    assert report.accuracy_baseline == report.accuracy_after  # it is the same network here


def test_evaluation_may_use_other_data():
    small = TINY.model_copy(update={"classes": [1, 0]})
    report = train(network(), settings(epochs=10, evaluate=small), quiet=True)
    assert report.accuracy_after < 0.1  # the labels are swapped


def test_progress_is_reported_at_every_step():
    steps_seen: list[tuple[int, int]] = []
    train(network(), settings(), progress=lambda step, steps, numbers: steps_seen.append((step, steps)))
    assert steps_seen == [(step, 8) for step in range(1, 9)]


def test_nothing_is_printed_and_nothing_is_left_behind(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(network(), settings(), quiet=True)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def all_frozen() -> nn.Module:
    return network().requires_grad_(False)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (all_frozen, {}, "every parameter of the model is frozen"),
        (lambda: network(10), {}, "has 10 classes, but the data have 2"),
        (lambda: network(channels=3), {}, "first convolution takes 3 channels but the data have 1"),
        (network, {"data": TINY.model_copy(update={"size": 9})}, "does not accept a batch of pixel_values"),
        (lambda: network().double(), {}, "weights are float64"),
        (network, {"data": None}, "nothing to train on"),
        (network, {"baseline": "scratch"}, "a function that makes the same network"),
        (network, {"arguments": {"weight_decai": 1}}, "nearest: weight_decay"),
        (network, {"arguments": {"save_strategy": "epoch"}}, "no folder for them"),
        (network, {"learning_rate": 1e30}, "training diverged"),
        (network, {"evaluate": TINY.model_copy(update={"classes": [0, 1, 2]})}, "evaluate has"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_trained_is_an_error_that_says_why(model, changes, message):
    with pytest.raises(TrainingError, match=message):
        train(model(), settings(**changes), quiet=True)


def test_a_last_batch_of_one_sample_is_explained():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(TrainingError, match="single sample"):
        train(model, settings(batch_size=39), quiet=True)
    report = train(model, settings(batch_size=39, arguments={"dataloader_drop_last": True}), quiet=True)
    assert len(report.history) == 2


def test_data_from_python_and_from_the_settings_exclude_each_other():
    with pytest.raises(TrainingError, match="given both"):
        train(network(), settings(), data=Splits(two_tasks(4), two_tasks(4)), quiet=True)


def test_checkpoints_go_to_the_folder_given(tmp_path):
    train(network(), settings(arguments={"save_strategy": "epoch"}), output_dir=tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-8", "run.json"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_in_bfloat16_brings_the_model_home():
    model = network()
    report = train(model, settings(epochs=10, arguments={"bf16": True}), quiet=True)
    assert report.device.startswith("cuda")
    assert report.accuracy_after > 0.9
    assert next(model.parameters()).device.type == "cpu"
