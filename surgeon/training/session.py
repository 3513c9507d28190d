"""Fine-tuning: a model, settings and data in, a trained model and a report out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import set_seed

from surgeon.data.combine import by_names_of, with_validation
from surgeon.data.network import Network
from surgeon.errors import TrainingError
from surgeon.interfaces.record import record_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.arguments import check_arguments
from surgeon.training.callbacks import ProgressReport, progress_bar, say_notes
from surgeon.training.class_names import adopt_names, adopt_padding, network_of
from surgeon.training.job import Job
from surgeon.training.load_splits import load_splits, prepared_as, sources_of
from surgeon.training.rates import for_baseline
from surgeon.training.report import TrainReport
from surgeon.training.stopping import make_callbacks, needs_validation, surgeon_callbacks, wanted_arguments

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


def train(
    model: nn.Module,
    settings: TrainSettings,
    *,
    objectives: Sequence[Objective] = (),
    schedules: Sequence[Schedule] = (),
    penalties: Sequence[Penalty] = (),
    stages: Sequence[Stage] = (),
    seed: int = 0,
    output_dir: Path | None = None,
    checkpoints: bool = False,
    resume: bool = False,
    baseline: Callable[[], nn.Module] | None = None,
    quiet: bool = False,
    progress: ProgressReport | None = None,
    plugins: Plugins | None = None,
    data: Splits | None = None,
    teacher: Callable[[], nn.Module] | None = None,
) -> TrainReport:
    """Fine-tune ``model`` in place; what is frozen stays as it is. The model comes back in eval mode.

    The same model, settings, data and seed give byte-identical weights on one CPU with one number of threads, also
    where the run was interrupted and resumed.

    Args:
        model: What to train. Parameters without ``requires_grad`` never enter the optimizer.
        settings: The recipe's ``train:`` section.
        objectives: Losses that operations ask for, beside those of the settings.
        schedules: Buffers that follow the progress of training.
        penalties: Terms that operations add to the loss.
        stages: Parts of the network that wait until an epoch.
        seed: Draws the order of samples, dropout, and the labelled samples where the data name no seed.
        output_dir: Where checkpoints and logs go; a folder that is removed again if left out.
        checkpoints: Make a checkpoint after every epoch and keep the last, unless the settings say otherwise.
        resume: Go on from the last checkpoint in ``output_dir``; ``model`` must be as it was when the run began.
        baseline: Makes the same network with fresh weights, nothing of it frozen; for ``baseline: scratch``.
        quiet: Show no progress bar.
        progress: Called with every step, instead of showing the progress bar.
        plugins: Where more losses come from; only the built-in ones if left out.
        data: Datasets from Python, instead of ``settings.data``.
        teacher: Loads the network to learn from; for ``distill``.

    Raises:
        TrainingError: Settings, data and model do not match, training diverges, or there is no such run to
            resume.
    """
    check_arguments(settings.arguments)
    wanted = [*(settings.objectives or ()), *objectives]
    network = network_of(model, wanted, default=settings.objectives is None)
    network = prepared_as(network, model, sources_of(settings))
    splits = _splits(settings, data, seed, network)
    offered = plugins.callbacks() if plugins else surgeon_callbacks()
    if needs_validation(settings, wanted_arguments(make_callbacks(settings.callbacks, offered))):
        splits = with_validation(splits, settings.validation_fraction, next(iter(network.heads), None))
    adopt_names(model, splits.names, wanted)
    adopt_padding(model, splits.preprocessing)
    if settings.compared is not None and baseline is None:
        raise TrainingError(
            "a baseline from scratch needs a function that makes the same network with fresh weights",
            where="train.baseline",
            hint="pass baseline=..., or set baseline: none",
        )
    if resume and output_dir is None:
        raise TrainingError("nothing to resume from: no folder of checkpoints is given", hint="name it: output_dir=")
    if settings.distill is not None and teacher is None:
        raise TrainingError(
            "distill needs a function that loads the teacher", where="train.distill", hint="pass teacher=..."
        )
    taught = teacher().requires_grad_(False).eval() if settings.distill is not None and teacher is not None else None
    job = Job(
        settings=settings,
        splits=splits,
        objectives=wanted,
        schedules=schedules,
        penalties=penalties,
        stages=stages,
        plugins=plugins,
        seed=seed,
        checkpoints=checkpoints,
        network=network,
        teacher=taught,
    )
    say_notes(splits.notes, quiet=quiet or progress is not None)
    with progress_bar("fine-tuning", progress, quiet=quiet) as say:
        report = job.run(model, output_dir, say, resume=resume)
    if settings.compared is not None and baseline is not None:
        report = _beside_baseline(job, report, baseline, output_dir, progress, quiet=quiet)
    record_training(model, settings, wanted, report)
    return report


def record_training(
    model: nn.Module, settings: TrainSettings, objectives: Sequence[Objective], report: TrainReport
) -> None:
    """Add a training to the record of a network that surgeon made: its weights are no longer the source's."""
    record = record_of(model)
    if record is None:
        return
    used = {"preprocessing": dict(record.preprocessing)} if record.preprocessing else {}
    record.training.append(
        {
            **used,
            "settings": settings.model_dump(mode="json"),
            "report": report.reproducible(),
            "classes": report.data.get("classes", {}),
            "split": report.data.get("split", {}),
            "objectives": [objective.model_dump(mode="json") for objective in objectives],
            "surgeries": len(record.surgeries),
        }
    )


def _beside_baseline(
    job: Job,
    report: TrainReport,
    baseline: Callable[[], nn.Module],
    output_dir: Path | None,
    progress: ProgressReport | None,
    *,
    quiet: bool,
) -> TrainReport:
    """Train the same network from fresh weights too, by settings of its own; the report with both."""
    settings = job.settings
    if settings.compared is None:
        return report
    set_seed(job.seed)
    # what is held to its start, or waits, does so for what it has learnt, and from scratch there is nothing
    free = for_baseline(settings, settings.compared)
    job = dataclasses.replace(job, settings=free, penalties=(), stages=(), teacher=None, fresh=True)
    with progress_bar("from scratch", progress, quiet=quiet) as say:
        scratch = job.run(baseline(), output_dir and output_dir / "baseline", say)
    return dataclasses.replace(report, baseline=scratch.after)


def _splits(settings: TrainSettings, data: Splits | None, seed: int, network: Network) -> Splits:
    if data is not None:
        if settings.data is not None or settings.evaluate is not None:
            raise TrainingError("data are given twice: in the settings and from Python", where="train.data")
        return by_names_of(network, data)
    if settings.data is None:
        raise TrainingError("nothing to train on", where="train.data", hint="data: {source: digits}")
    return load_splits(settings, seed, network)
