"""Apply operations to a model and train the result, or train a prepared network."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from surgeon.architectures.preprocessing import updated
from surgeon.architectures.source import Source
from surgeon.architectures.trust import TrustCode
from surgeon.data.requirements import require
from surgeon.errors import TrainingError, name_nearest_option
from surgeon.interfaces.operation import Operation, training_requests
from surgeon.interfaces.record import ATTRIBUTE, Record
from surgeon.interfaces.splits import Splits
from surgeon.pipeline import api as engine
from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.check_task import check_task
from surgeon.pipeline.companions import with_tokenizer
from surgeon.pipeline.prepare import Operations, Prepared, as_recipe, prepare
from surgeon.pipeline.teacher import load_before, load_teacher
from surgeon.plugins import Plugins, as_plugins
from surgeon.recipe.load import Recipe
from surgeon.recipe.recorded import recorded_operations
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.opened import Model
from surgeon.training.checkpoints import RUN
from surgeon.training.load_splits import sources_of
from surgeon.training.report import TrainReport
from surgeon.training.session import train

HEAD_STARTS = ("freeze", "transfer")
"""Operations to leave out for a network trained from scratch."""


@name_nearest_option
def finetune(
    model: Model | None,
    operations: Operations,
    *,
    settings: TrainSettings | None = None,
    data: Splits | None = None,
    output_dir: str | Path | None = None,
    checkpoints: bool = False,
    resume: bool = False,
    quiet: bool = True,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> tuple[nn.Module, TrainReport]:
    """Apply a recipe and train the result by its ``train:`` section; return the network, in eval mode, and the report.

    :func:`surgeon.save` writes the network with the record of its operations and training. To write and check an
    artifact in one call, as ``surgeon apply`` does, use :func:`surgeon.run_recipe`.

    Args:
        model: The network: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory,
            which is not changed; None for the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        settings: How to train, overriding the recipe's ``train:`` section.
        data: Datasets from Python, instead of the settings' data.
        output_dir: The folder for checkpoints and logs. Default: a temporary one.
        checkpoints: Whether to write a checkpoint after every epoch and keep the last, unless the settings say
            otherwise.
        resume: Whether to continue from the last checkpoint in ``output_dir``.
        quiet: Whether to show no progress bar.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of new values and of training, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, added to the recipe's or overriding them by name.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        TrainingError: There are no settings for training, or settings, data and model do not fit together.
        SurgeonError: The recipe, the source or an operation is invalid; the class of the error says which.
    """
    plugins = as_plugins(plugins)
    recipe = as_recipe(operations, plugins)
    how = settings or recipe.train
    if how is None:
        raise TrainingError(
            "there is no train: section",
            where=str(recipe.path) if recipe.path else None,
            hint="add train: to the recipe, or pass settings=surgeon.TrainSettings(...); surgeon.apply does not train",
        )
    require("train", "fine-tuning")
    if settings is None:
        check_training(recipe, plugins, on_this_machine=True, needs_data=data is None)
    prepared = prepare(
        model,
        recipe,
        arch=arch,
        seed=seed,
        roles=roles,
        inputs=inputs,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        plugins=plugins,
        outputs=False,
    )
    check_task(prepared, how)
    trainee = ready(prepared)
    folder = Path(output_dir) if output_dir is not None else None
    report = train_ready(
        trainee,
        how,
        plugins=plugins,
        folder=folder,
        checkpoints=checkpoints,
        resume=resume,
        quiet=quiet,
        data=data,
    )
    if folder is not None:
        (folder / RUN).unlink(missing_ok=True)  # the run is complete: nothing is left to resume
    return trainee.model, report


@dataclass
class Trainee:
    """A network to train.

    Attributes:
        model: The network, filled with its weights.
        record: How it was made; training adds its report.
        source: What it was made from, to build the same network with initial weights.
        operations: The operations of its last recipe, which may add losses, schedules and penalties.
        seed: The seed of training.
        inputs: The files that it was read from.
        before: Loads the network as it was before its last recipe; None where it is not at hand.
    """

    model: nn.Module
    record: Record
    source: Source
    operations: list[Operation]
    seed: int
    inputs: list[Path] = field(default_factory=list)
    before: Callable[[], nn.Module] | None = field(default=None, repr=False)


def ready(prepared: Prepared, progress: Callable[[int], None] | None = None) -> Trainee:
    """Fill an edited skeleton; ``progress`` is called with the number of bytes after each read."""
    model = prepared.materialise(progress)
    seed = prepared.record.surgeries[-1].seed
    operations = list(prepared.recipe.operations)
    before = partial(load_before, prepared.source, prepared.opened.options)
    return Trainee(model, prepared.record, prepared.source, operations, seed, prepared.inputs, before)


def train_ready(
    trainee: Trainee,
    settings: TrainSettings,
    *,
    plugins: Plugins,
    folder: Path | None = None,
    checkpoints: bool = False,
    resume: bool = False,
    quiet: bool = False,
    data: Splits | None = None,
) -> TrainReport:
    """Train a network in place, and add the report to its record.

    Args:
        trainee: The network.
        settings: How to train.
        plugins: The plugins.
        folder: The folder for checkpoints and logs. Default: a temporary one.
        checkpoints: Whether to write a checkpoint after every epoch, unless the settings say otherwise.
        resume: Whether to continue from the last checkpoint.
        quiet: Whether to show no progress.
        data: Datasets from Python, instead of the settings' data.
    """
    gc.enable()  # commands disable it, but training is long and creates cycles
    setattr(trainee.model, ATTRIBUTE, trainee.record)  # training needs its roles and inputs
    additions = training_requests(trainee.operations)
    distill = settings.distill
    teacher = None if distill is None else lambda: load_teacher(distill.teacher, trainee.before, plugins)
    report = train(
        trainee.model,
        settings,
        objectives=additions.objectives,
        schedules=additions.schedules,
        penalties=additions.penalties,
        stages=additions.stages,
        seed=trainee.seed,
        output_dir=folder,
        checkpoints=checkpoints,
        resume=resume,
        baseline=lambda: from_scratch(trainee.source, trainee.record, plugins),
        quiet=quiet,
        plugins=plugins,
        data=data,
        teacher=teacher,
    )
    if used := trainee.record.preprocessing:
        tokenizer = next(
            (name for source in sources_of(settings) if (name := getattr(source, "tokenizer", None))), None
        )
        companions = trainee.record.companions
        trainee.record.carry(updated(companions if tokenizer is None else with_tokenizer(companions, tokenizer), used))
    return report


def from_scratch(source: Source, record: Record, plugins: Plugins) -> nn.Module:
    """Build the same network with its builder's initial values and nothing frozen, as a baseline."""
    model = source.initialised()
    for past in record.surgeries:
        operations = [step for step in recorded_operations(past, plugins) if step.name not in HEAD_STARTS]
        if operations:
            model = engine.apply(
                model,
                Recipe.recorded(operations),
                seed=past.seed,
                roles=past.roles,
                inputs=past.inputs,
                plugins=plugins,
                inplace=True,
            )
    setattr(model, ATTRIBUTE, record)  # the roles and inputs are those of the trained network
    return model.requires_grad_(True)
