"""The way from an edited skeleton through the training loop to an artifact."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from surgeon.architectures.preprocessing import updated
from surgeon.architectures.source import Source
from surgeon.errors import OutputError
from surgeon.interfaces.operation import Operation, asked_of_training
from surgeon.interfaces.record import ATTRIBUTE, Record
from surgeon.pipeline import api as engine
from surgeon.pipeline.companions import with_tokenizer
from surgeon.pipeline.prepare import Prepared
from surgeon.plugins import Plugins
from surgeon.recipe.load import operations_from
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.checkpoints import RUN
from surgeon.training.curve import draw
from surgeon.training.load_splits import sources_of
from surgeon.training.report import TrainReport
from surgeon.training.session import train

HEAD_STARTS = ("freeze", "transfer")
"""What a network that starts from scratch goes without."""


def checkpoints_beside(path: Path, settings: TrainSettings, *, force: bool) -> Path | None:
    """The folder for checkpoints and logs made in training, ``OUT.checkpoints``; None where none are asked for.

    Raises:
        OutputError: It exists, and ``force`` does not say that earlier checkpoints in it may go.
    """
    asked = (settings.arguments.get("save_strategy", "no"), settings.arguments.get("report_to", "none"))
    if all(each in ("no", "none", []) for each in asked):
        return None
    folder = path.with_name(f"{path.name}.checkpoints")
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists", hint="--force replaces the checkpoints in it; -o names another place")
    return folder


@dataclass
class Trainee:
    """A network that is ready to train, and what is known of it."""

    model: nn.Module
    record: Record
    source: Source
    """What it was made from, for the same network from fresh weights."""
    operations: list[Operation]
    """Those that ask something of training: of its last recipe."""
    seed: int


def finetune(
    trainee: Trainee,
    settings: TrainSettings,
    *,
    plugins: Plugins,
    checkpoints: Path | None = None,
    quiet: bool = False,
) -> tuple[nn.Module, TrainReport]:
    """Train what is ready; returns the network with the report, which its record keeps too.

    Args:
        trainee: The network.
        settings: The recipe's ``train:`` section.
        plugins: The plugins at hand.
        checkpoints: Where checkpoints and logs go; they are not to be resumed from.
        quiet: Show no progress.
    """
    report = train_ready(trainee, settings, plugins=plugins, folder=checkpoints, quiet=quiet)
    if checkpoints is not None:
        (checkpoints / RUN).unlink(missing_ok=True)  # not interrupted: there is nothing to resume
    return trainee.model, report


def ready(prepared: Prepared, progress: Callable[[int], None] | None = None) -> Trainee:
    """Let the weights flow in; ``progress`` is called with a number of bytes each time some have been read."""
    model = prepared.materialise(progress)
    seed = prepared.record.surgeries[-1].seed
    return Trainee(model, prepared.record, prepared.source, list(prepared.recipe.operations), seed)


def train_ready(
    trainee: Trainee,
    settings: TrainSettings,
    *,
    plugins: Plugins,
    folder: Path | None = None,
    checkpoints: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> TrainReport:
    """Train what is ready; the report is put into its record.

    Args:
        trainee: The network.
        settings: The recipe's ``train:`` section.
        plugins: The plugins at hand.
        folder: Where checkpoints and logs go.
        checkpoints: Make one after every epoch, unless the settings say otherwise.
        resume: Go on from the last of them.
        quiet: Show no progress.
    """
    gc.enable()  # a command runs without it, but training is long and leaves cycles behind
    setattr(trainee.model, ATTRIBUTE, trainee.record)  # what roles and inputs it has is needed on the way
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
    )
    entry = {"settings": settings.model_dump(mode="json"), "report": measures(report)}
    if used := trainee.record.preprocessing:
        entry["preprocessing"] = dict(used)
        tokenizer = next((each.tokenizer for each in sources_of(settings) if getattr(each, "tokenizer", None)), None)
        companions = trainee.record.companions
        trainee.record.carry(updated(companions if tokenizer is None else with_tokenizer(companions, tokenizer), used))
    trainee.record.training.append(entry)
    return report


def from_scratch(source: Source, record: Record, plugins: Plugins) -> nn.Module:
    """The same network with values of its builder's own, nothing of it frozen: what training alone achieves."""
    model = source.initialised()
    for past in record.surgeries:
        operations = [each for each in operations_from(past.operations, plugins) if each.name not in HEAD_STARTS]
        if operations:
            model = _operated(model, operations, past.seed, past.roles, past.inputs, plugins)
    setattr(model, ATTRIBUTE, record)  # the roles and inputs it has are those of the network that is trained
    return model.requires_grad_(True)


def _operated(
    model: nn.Module, operations: list[Operation], seed: int, roles: object, inputs: object, plugins: Plugins
) -> nn.Module:
    return engine.apply(model, operations, seed=seed, roles=roles, inputs=inputs, plugins=plugins, inplace=True)


def save_trained(model: nn.Module, prepared: Prepared, path: Path, *, force: bool = False) -> Path:
    """Write the trained network with the record of its surgery and training."""
    setattr(model, ATTRIBUTE, prepared.record)
    return engine.save(model, path, force=force)


def save_curve(report: TrainReport, path: Path) -> Path:
    """Draw the course of training beside the artifact ``path``, as ``OUT.svg``; returns where."""
    picture = path.with_name(f"{path.name}.svg")
    picture.write_text(draw(report.history, f"training of {path.name}"), encoding="utf-8")
    return picture


def measures(report: TrainReport) -> dict[str, object]:
    """The part of a report that is the same in every run: an artifact must not depend on the clock."""
    data = report.to_dict()
    return {
        key: value for key, value in data.items() if key not in {"seconds", "samples_per_second", "history", "device"}
    }
