"""Apply operations to a model and train the result; or train what is ready to train."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from surgeon.architectures.preprocessing import updated
from surgeon.architectures.source import Source
from surgeon.architectures.trust import TrustCode
from surgeon.data.requirements import require
from surgeon.errors import TrainingError, name_nearest_option
from surgeon.interfaces.operation import Operation, asked_of_training
from surgeon.interfaces.record import ATTRIBUTE, Record
from surgeon.interfaces.splits import Splits
from surgeon.pipeline import api as engine
from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.check_task import check_task
from surgeon.pipeline.companions import with_tokenizer
from surgeon.pipeline.prepare import Operations, Prepared, as_recipe, prepare
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.recipe.load import Recipe, operations_from
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.opened import Model
from surgeon.training.checkpoints import RUN
from surgeon.training.load_splits import sources_of
from surgeon.training.report import TrainReport
from surgeon.training.session import train

HEAD_STARTS = ("freeze", "transfer")
"""Operations that a network trained from scratch goes without."""


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
    plugins: Plugins | None = None,
) -> tuple[nn.Module, TrainReport]:
    """Apply a recipe and train the result by its ``train:`` section; return the network, in eval mode, and the report.

    :func:`surgeon.save` writes the network with the record of its operations and its training. To write and check
    an artifact in one call, as ``surgeon apply`` does, use :func:`surgeon.run_recipe`.

    Args:
        model: What to operate on: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, a
            module in memory, which is left as it is; None takes the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        settings: How to train, instead of the recipe's ``train:`` section.
        data: Datasets from Python, instead of the data that the settings name.
        output_dir: The folder for checkpoints and logs; a temporary one if left out.
        checkpoints: Write a checkpoint after every epoch and keep the last, unless the settings say otherwise.
        resume: Continue from the last checkpoint in ``output_dir``.
        quiet: Show no progress bar.
        arch: What builds the network, where neither the source nor the recipe says.
        seed: The seed of new values and of training, instead of the recipe's.
        roles: Roles of sites, as ``{"head": "fc"}``, beside the recipe's and instead of those of the same name.
        inputs: The inputs to trace with, instead of the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        TrainingError: Nothing says how to train, or settings, data and model do not fit together.
        SurgeonError: The recipe, the source or an operation is at fault; the class of the error says which.
    """
    plugins = plugins or load_plugins()
    recipe = as_recipe(operations, plugins)
    how = settings or recipe.train
    if how is None:
        raise TrainingError(
            "there is no train: section, so nothing says how to train",
            where=str(recipe.path) if recipe.path else None,
            hint="add train: to the recipe, or pass settings=surgeon.TrainSettings(...); surgeon.apply does not train",
        )
    require("train", "fine-tuning")
    if settings is None:
        check_training(recipe, plugins, here=True, needs_data=data is None)
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
    check_task(prepared.model, prepared.plan.outputs, how, prepared.recipe.operations)
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
    """A network that is ready to train.

    Attributes:
        model: The network, filled with its weights.
        record: How it was made; training adds its report.
        source: What it was made from, to build the same network with fresh weights.
        operations: The operations of its last recipe, which may add losses, schedules and penalties to training.
        seed: The seed of training.
        inputs: The files that it was read from.
    """

    model: nn.Module
    record: Record
    source: Source
    operations: list[Operation]
    seed: int
    inputs: list[Path] = field(default_factory=list)


def ready(prepared: Prepared, progress: Callable[[int], None] | None = None) -> Trainee:
    """Fill an edited skeleton; ``progress`` is called with a number of bytes each time some have been read."""
    model = prepared.materialise(progress)
    seed = prepared.record.surgeries[-1].seed
    operations = list(prepared.recipe.operations)
    return Trainee(model, prepared.record, prepared.source, operations, seed, prepared.inputs)


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
    """Train a network that is ready, in place, and add the report to its record.

    Args:
        trainee: The network.
        settings: How to train.
        plugins: The plugins.
        folder: Where checkpoints and logs go; a temporary folder if left out.
        checkpoints: Write a checkpoint after every epoch, unless the settings say otherwise.
        resume: Continue from the last checkpoint.
        quiet: Show no progress.
        data: Datasets from Python, instead of the data that the settings name.
    """
    gc.enable()  # a command runs without it, but training is long and leaves cycles behind
    setattr(trainee.model, ATTRIBUTE, trainee.record)  # training needs its roles and inputs
    asked = asked_of_training(trainee.operations)
    report = train(
        trainee.model,
        settings,
        objectives=asked.objectives,
        schedules=asked.schedules,
        penalties=asked.penalties,
        stages=asked.stages,
        seed=trainee.seed,
        output_dir=folder,
        checkpoints=checkpoints,
        resume=resume,
        baseline=lambda: from_scratch(trainee.source, trainee.record, plugins),
        quiet=quiet,
        plugins=plugins,
        data=data,
    )
    entry: dict[str, object] = {}
    if used := trainee.record.preprocessing:
        entry["preprocessing"] = dict(used)
        tokenizer = next((each.tokenizer for each in sources_of(settings) if getattr(each, "tokenizer", None)), None)
        companions = trainee.record.companions
        trainee.record.carry(updated(companions if tokenizer is None else with_tokenizer(companions, tokenizer), used))
    trainee.record.training.append(
        {
            **entry,
            "settings": settings.model_dump(mode="json"),
            "report": measures(report),
            "classes": report.data.get("classes", {}),
            "split": report.data.get("split", {}),
            "objectives": [each.model_dump(mode="json") for each in (*(settings.objectives or ()), *asked.objectives)],
            "surgeries": len(trainee.record.surgeries),
        }
    )
    return report


def from_scratch(source: Source, record: Record, plugins: Plugins) -> nn.Module:
    """Build the same network with its builder's initial values, nothing frozen: what training alone achieves."""
    model = source.initialised()
    for past in record.surgeries:
        operations = [step for step in operations_from(past.operations, plugins) if step.name not in HEAD_STARTS]
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
    setattr(model, ATTRIBUTE, record)  # it has the roles and inputs of the network that is trained
    return model.requires_grad_(True)


def measures(report: TrainReport) -> dict[str, object]:
    """Select the part of a report that is the same in every run: an artifact must not depend on the clock."""
    left_out = {"seconds", "samples_per_second", "history", "device", "data"}
    return {key: value for key, value in report.to_dict().items() if key not in left_out}
