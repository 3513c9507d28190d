"""What the Trainer, trackers and optimizers are asked for; weights, smoothing, averages, baselines (13.5 to 13.10)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch.nn import functional as F

from cases.harness import Outcome, case, either, equal, expect, right, surgeon_command
from cases.material import Material, numbers
from cases.names import head
from cases.training_numbers import by_hand, data, near, trained, whole

TRACKERS = ("wandb", "mlflow", "comet_ml", "no-such-tracker")


@case("13.5", of=TRACKERS)
def a_tracker_that_is_not_installed(material: Material, name: str) -> Outcome:
    """Refused at the start, not after the last epoch."""
    steps: list[int] = []

    def attempt() -> Outcome:
        trained(
            numbers(),
            data(),
            epochs=2,
            arguments={"report_to": name},
            progress=lambda step, steps_, values: steps.append(step),
        )
        raise AssertionError("trained without the tracker")

    outcome = either(attempt, name.replace("_ml", ""))
    equal(steps, [], "steps before it was refused")
    return outcome


OPTIMIZERS = ("adamw_8bit", "galore_adamw", "lomo", "schedule_free_adamw", "nonsense")


@case("13.5", of=OPTIMIZERS)
def an_optimizer_that_is_not_installed(material: Material, name: str) -> Outcome:
    def attempt() -> Outcome:
        return right(f"trained: {trained(numbers(), data(), epochs=1, arguments={'optim': name}).after}")

    return either(attempt)


BAD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "metric that is not measured": {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "nonsense",
    },
    "fp16 on a CPU": {"fp16": True},
    "deepspeed": {"deepspeed": {"zero_optimization": {"stage": 2}}},
    "fsdp": {"fsdp": "full_shard"},
    "checkpointing of a plain network": {"gradient_checkpointing": True},
    "scheduler by no name": {"lr_scheduler_type": "wavy"},
    "a misspelt argument": {"weight_decai": 0.1},
    "text for a number": {"weight_decay": "much"},
    "neftune on numbers": {"neftune_noise_alpha": 5},
    "grouped by length": {"train_sampling_strategy": "group_by_length"},
    "steps of saving": {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1},
    "plateau without evaluation": {"lr_scheduler_type": "reduce_lr_on_plateau"},
}


@case("13.5", of=BAD_ARGUMENTS)
def arguments_of_the_trainer(material: Material, arguments: dict[str, Any]) -> Outcome:
    def attempt() -> Outcome:
        report = trained(numbers(), data(), epochs=2, arguments=arguments, output_dir=material.folder / "out")
        expect(all(math.isfinite(value) for value in report.after.values()), report.after)
        return right("trained")

    return either(attempt)


@case("13.8")
def a_baseline_has_settings_of_its_own(material: Material) -> Outcome:
    """Discriminative rates of the fine-tuning are none of the baseline's: it trains as it does alone."""
    splits = data()
    rates = {"rates": {"first": 0.0001, "second": 0.0001}}
    model = numbers(seed=1, norm=False)
    report = trained(model, splits, baseline=lambda: numbers(seed=7, norm=False), optimizer=rates, compare="scratch")
    expected = trained(numbers(seed=7, norm=False), splits).after
    expect(report.baseline is not None, "no baseline was trained")
    for name, value in expected.items():
        expect(
            abs(report.baseline[name] - value) < 1e-5, f"{name} of the baseline: {report.baseline[name]}, alone {value}"
        )
    return right(f"as trained alone: {expected}")


@case("13.10")
def weights_of_classes(material: Material) -> Outcome:
    splits, model = data(), numbers(norm=False)
    x, y = whole(splits)
    weights = torch.tensor([1.0, 3.0, 0.5])
    reference = by_hand(copy.deepcopy(model), lambda net: F.cross_entropy(net(x), y, weight=weights))
    trained(model, splits, class_weights=[1.0, 3.0, 0.5])
    return near(model, reference)


@case("13.10")
def smoothed_labels(material: Material) -> Outcome:
    splits, model = data(), numbers(norm=False)
    x, y = whole(splits)
    reference = by_hand(copy.deepcopy(model), lambda net: F.cross_entropy(net(x), y, label_smoothing=0.1))
    trained(model, splits, label_smoothing=0.1)
    return near(model, reference)


@case("13.10")
def an_average_of_the_weights(material: Material) -> Outcome:
    """An exponential average over the steps, whose decay grows from 2/11 to what was asked for."""
    splits, model = data(), numbers(norm=False)
    x, y = whole(splits)
    reference, averaged = copy.deepcopy(model), copy.deepcopy(model)
    for step in range(10):
        by_hand(reference, lambda net: F.cross_entropy(net(x), y), steps=1)
        decay = min(0.8, (1 + step) / (10 + step)) if step else 0.0
        for average, latest in zip(averaged.parameters(), reference.parameters(), strict=True):
            average.data.mul_(decay).add_(latest.data, alpha=1 - decay)
    trained(model, splits, average={"kind": "ema", "decay": 0.8})
    return near(model, averaged)


@case("13.5")
def a_bf16_network(material: Material) -> Outcome:
    return either(lambda: right(trained(numbers(norm=False).to(torch.bfloat16), data(), epochs=1).after))


@case("13.5")
def a_float64_network(material: Material) -> Outcome:
    return either(lambda: right(trained(numbers(norm=False).double(), data(), epochs=1).after), "float64")


@case("13.6")
def bf16_of_the_readme(material: Material) -> Outcome:
    """The README's own settings, from the command line, on a network that reads tables of pictures."""
    pictures = material.pictures(("cat", "dog"))
    recipe = material.recipe(
        [head(["dog", "cat"])],
        train={
            "data": {"source": "images", "path": str(pictures)},
            "epochs": 2,
            "learning_rate": 1e-3,
            "optimizer": {"layer_decay": 0.8, "head_rate": 10},
            "arguments": {"bf16": True, "weight_decay": 0.01},
        },
    )
    ran = surgeon_command("apply", recipe, material.vit(num_hidden_layers=2), "-o", material.folder / "out")
    equal(ran.code, 0, f"exit code ({ran.said[-200:]})")
    check = surgeon_command("check", material.folder / "out", "--source", material.vit(num_hidden_layers=2))
    equal(check.code, 0, f"exit code of check ({check.said[-200:]})")
    return right("applied and checked")
