"""Make transformers' TrainingArguments from a recipe's ``train:`` section."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from surgeon.errors import TrainingError, suggest
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.early_stopping import higher_is_better
from surgeon.training.rates import numeric_rate
from surgeon.training.trackers import key_problems, tracker_problems

TAKEN = {
    "output_dir": "it is derived from surgeon's output path (-o)",
    "learning_rate": "use train.learning_rate",
    "num_train_epochs": "use train.epochs",
    "per_device_train_batch_size": "use train.batch_size",
    "seed": "use the recipe's seed",
    "data_seed": "use the recipe's seed",
    "remove_unused_columns": "surgeon selects the columns that the model and its objectives use",
    "label_names": "objectives define their label columns",
    "label_smoothing_factor": "use train.label_smoothing",
    "disable_tqdm": "surgeon shows its own progress; use --quiet",
    "prediction_loss_only": "surgeon evaluates every objective on the test samples",
    "batch_eval_metrics": "surgeon evaluates every objective on the test samples",
    "do_train": "a train: section trains; leave it out, or use --no-train",
    "do_eval": "surgeon evaluates before and after training; use eval_strategy for evaluation during training",
    "do_predict": "surgeon evaluates before and after training; use eval_strategy for evaluation during training",
    **dict.fromkeys(
        (
            *("push_to_hub", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_always_push"),
            *("hub_revision", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token"),
            *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        ),
        "no recipe publishes anything; surgeon push ARTIFACT ORG/NAME does, once you have seen the result",
    ),
    "logging_dir": "logs are written beside surgeon's output (-o)",
    "resume_from_checkpoint": "use surgeon train --resume, or train(..., resume=True)",
}
"""Arguments that surgeon sets itself, and what to use instead."""


def argument_problems(arguments: Mapping[str, Any]) -> list[TrainingError]:
    """Return an error for each unknown argument, and for each that another key of the recipe sets."""
    names = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    problems = []
    for name in arguments:
        where = f"train.arguments.{name}"
        if name in TAKEN:
            problems.append(TrainingError(f"{name!r} cannot be set here", where=where, hint=TAKEN[name]))
        elif name not in names:
            hint = suggest(name, names - set(TAKEN))
            problems.append(TrainingError(f"transformers.TrainingArguments has no {name!r}", where=where, hint=hint))
    return [*problems, *tracker_problems(arguments.get("report_to", "none"))]


def _optimizer(arguments: TrainingArguments) -> None:
    """Refuse an optimizer whose package is not installed, before the data are read.

    Raises:
        TrainingError: The package is missing; the error names it.
    """
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError as error:
        raise TrainingError(
            f"the optimizer {arguments.optim!s} is not installed: {_first_line(error)}",
            where="train.arguments.optim",
            hint="install the package that it names, or use optim: adamw_torch",
        ) from error
    except ValueError as error:
        if "model" in str(error):  # it needs the network, which is not available here
            return
        raise TrainingError(
            f"the optimizer {arguments.optim!s} is refused: {_first_line(error)}", where="train.arguments.optim"
        ) from error
    except (AttributeError, TypeError, AssertionError):
        return  # it needs the network


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse a name that TrainingArguments does not know or another key decides, and a tracker that cannot be used.

    Raises:
        TrainingError: An argument is refused; the error names the nearest ones.
    """
    for problem in (*argument_problems(arguments), *key_problems(arguments.get("report_to", "none"))):
        raise problem


def training_arguments(
    settings: TrainSettings,
    *,
    output_dir: Path,
    seed: int,
    checkpoints: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> TrainingArguments:
    """Make the Trainer's arguments: quiet, seeded, with one log entry per epoch; a recipe may change any of these.

    Args:
        settings: The recipe's ``train:`` section.
        output_dir: The folder for checkpoints and logs.
        seed: The run's seed.
        checkpoints: Whether to make one after every epoch and keep the last, unless the settings say otherwise.
        extra: Defaults that callbacks need.

    Raises:
        TrainingError: A value is invalid, or FSDP is set without GPUs. :func:`check_arguments` checks names.
    """
    if "max_steps" in settings.arguments and "epochs" in settings.model_fields_set:
        raise TrainingError("epochs and arguments.max_steps exclude each other", where="train.arguments.max_steps")
    _refuse_without_effect(settings)
    defaults: dict[str, Any] = {
        "logging_strategy": "epoch",
        "logging_nan_inf_filter": False,  # a NaN loss must be logged, not filtered
        **({"save_strategy": "epoch", "save_total_limit": 1} if checkpoints else {"save_strategy": "no"}),
        "report_to": "none",
        "eval_do_concat_batches": False,  # to append each batch to a growing table takes quadratic time
        "per_device_eval_batch_size": settings.batch_size,
        "dataloader_pin_memory": torch.cuda.is_available(),
        # set explicitly: otherwise several processes (torchrun) do not find each other on the CPU
        "use_cpu": not torch.accelerator.is_available(),
        **({"warmup_steps": settings.warmup} if settings.warmup else {}),
        **(extra or {}),
    }
    try:
        arguments = TrainingArguments(
            output_dir=str(output_dir),
            learning_rate=numeric_rate(settings),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            label_names=[],
            disable_tqdm=True,
            **_merged(defaults, settings.arguments),
        )
    except (TypeError, ValueError, ImportError) as error:
        raise TrainingError(
            f"transformers.TrainingArguments refuses the settings: {str(error).strip().splitlines()[0]}",
            where="train.arguments",
            hint="; ".join(f"{name}: {value!r}" for name, value in settings.arguments.items()) or None,
        ) from error
    if arguments.fsdp and (arguments.use_cpu or arguments.world_size < 2):  # accelerate ignores it on CPUs
        raise TrainingError(
            "FSDP needs several GPUs",
            where="train.arguments.fsdp",
            hint="start with torchrun on a machine with GPUs, or leave fsdp out",
        )
    _optimizer(arguments)
    return arguments


def _refuse_without_effect(settings: TrainSettings) -> None:
    """Refuse a key that an argument takes the effect from.

    Raises:
        TrainingError: There is one.
    """
    schedule = str(settings.arguments.get("lr_scheduler_type", ""))
    if settings.warmup and schedule == "constant":
        raise TrainingError(
            "the schedule constant has no warm-up",
            where="train.warmup",
            hint="use arguments: {lr_scheduler_type: constant_with_warmup}, or warmup: 0",
        )
    if settings.sampling != "uniform" and "train_sampling_strategy" in settings.arguments:
        raise TrainingError(
            f"sampling: {settings.sampling} and arguments.train_sampling_strategy both choose the order of samples",
            where="train.arguments.train_sampling_strategy",
            hint="use one of them",
        )


def _merged(defaults: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Override defaults by what is given; with an explicit save_strategy, keep all checkpoints as transformers does."""
    if "save_strategy" in arguments:
        defaults.pop("save_total_limit", None)
    if "metric_for_best_model" in arguments and "greater_is_better" in defaults:
        # the direction is that of the metric that is compared, not of the one that it takes the place of
        defaults["greater_is_better"] = higher_is_better(str(arguments["metric_for_best_model"]))
    return {**defaults, **arguments}
