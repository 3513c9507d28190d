"""Fine-tune a model on data, and report the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from surgeon.recipe.recorded_plugins import foreign, foreign_penalties, parts_of_training
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.arguments import check_arguments
from surgeon.training.callbacks import ProgressReport, progress_bar, say_notes
from surgeon.training.class_names import adopt_names, adopt_padding, check_padding, network_of
from surgeon.training.early_stopping import make_callbacks, needs_validation, surgeon_callbacks, wanted_arguments
from surgeon.training.job import Job
from surgeon.training.load_splits import load_splits, prepared_as, sources_of
from surgeon.training.rates import for_baseline
from surgeon.training.report import TrainReport

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
    """Fine-tune ``model`` in place, without its frozen parameters, and leave it in eval mode.

    The same model, settings, data and seed give byte-identical weights on one CPU with one number of threads, even
    if the run was interrupted and resumed.

    Args:
        model: The network. Parameters without ``requires_grad`` never enter the optimizer.
        settings: The recipe's ``train:`` section.
        objectives: Losses of operations, added to those of the settings.
        schedules: Buffers that follow the progress of training.
        penalties: Terms that operations add to the loss.
        stages: Parts of the network that stay frozen until an epoch.
        seed: Draws the order of samples, dropout, and the labelled samples if the data have no seed.
        output_dir: The folder for checkpoints and logs; None for a temporary folder.
        checkpoints: Make a checkpoint after every epoch and keep the last, unless the settings say otherwise.
        resume: Continue from the last checkpoint in ``output_dir``; ``model`` must be the same as when the run began.
        baseline: Makes the same network with initial weights and nothing frozen; for ``baseline: scratch``.
        quiet: Show no progress bar.
        progress: Called with every step, instead of showing the progress bar.
        plugins: Plugins with further losses; None for the built-in ones only.
        data: Datasets from Python, instead of ``settings.data``.
        teacher: Loads the network to learn from; for ``distill``.

    Raises:
        TrainingError: Settings, data and model do not match, training diverges, or there is no run to resume.
    """
    check_arguments(settings.arguments)
    all_objectives = [*(settings.objectives or ()), *objectives]
    network = network_of(model, all_objectives, default=settings.objectives is None)
    network = prepared_as(network, model, sources_of(settings))
    splits = _splits(settings, data, seed, network)
    offered = plugins.callbacks() if plugins else surgeon_callbacks()
    if needs_validation(settings, wanted_arguments(make_callbacks(settings.callbacks, offered))):
        splits = with_validation(splits, settings.validation_fraction, next(iter(network.heads), None))
    adopt_names(model, splits.names, all_objectives)
    check_padding(model, splits.preprocessing)
    padding_note = adopt_padding(model, splits.preprocessing)
    if settings.compared is not None and baseline is None:
        raise TrainingError(
            "a baseline from scratch needs a function that makes the same network with initial weights",
            where="train.baseline",
            hint="pass baseline=..., or set baseline: none",
        )
    if resume and output_dir is None:
        raise TrainingError("nothing to resume from: no folder of checkpoints is given", hint="pass output_dir=FOLDER")
    if settings.distill is not None and teacher is None:
        raise TrainingError(
            "distill needs a function that loads the teacher", where="train.distill", hint="pass teacher=..."
        )
    taught = teacher().requires_grad_(False).eval() if settings.distill is not None and teacher is not None else None
    if taught is not None:
        adopt_padding(taught, splits.preprocessing)
    job = Job(
        settings=settings,
        splits=splits,
        objectives=all_objectives,
        schedules=schedules,
        penalties=penalties,
        stages=stages,
        plugins=plugins,
        seed=seed,
        checkpoints=checkpoints,
        network=network,
        teacher=taught,
    )
    say_notes([*splits.notes, *filter(None, [padding_note])], quiet=quiet or progress is not None)
    with progress_bar("fine-tuning", progress, quiet=quiet) as say:
        report = job.run(model, output_dir, say, resume=resume)
    if settings.compared is not None and baseline is not None:
        report = _with_baseline(job, report, baseline, output_dir, progress, quiet=quiet)
    made_by: dict[str, str] = {}
    if plugins is not None:
        made_by = foreign(plugins, parts_of_training(settings, all_objectives, schedules))
    record_training(model, settings, all_objectives, report, {**made_by, **foreign_penalties(penalties)})
    return report


def record_training(
    model: nn.Module,
    settings: TrainSettings,
    objectives: Sequence[Objective],
    report: TrainReport,
    plugins: Mapping[str, str],
) -> None:
    """Add a training to the record of a network made by surgeon, whose weights now differ from the source's.

    Args:
        model: The network.
        settings: How it was trained.
        objectives: The losses.
        report: What came of it.
        plugins: What plugins offered for it, with their distributions.
    """
    record = record_of(model)
    if record is None:
        return
    used = {"preprocessing": dict(record.preprocessing)} if record.preprocessing else {}
    record.training.append(
        {
            **used,
            **({"plugins": dict(plugins)} if plugins else {}),
            "settings": settings.model_dump(mode="json"),
            "report": report.reproducible(),
            "classes": report.data.get("classes", {}),
            "split": report.data.get("split", {}),
            "objectives": [objective.model_dump(mode="json") for objective in objectives],
            "surgeries": len(record.surgeries),
        }
    )


def _with_baseline(
    job: Job,
    report: TrainReport,
    baseline: Callable[[], nn.Module],
    output_dir: Path | None,
    progress: ProgressReport | None,
    *,
    quiet: bool,
) -> TrainReport:
    """Train the same network from initial weights too, and return the report with both."""
    settings = job.settings
    if settings.compared is None:
        return report
    set_seed(job.seed)
    # stages and penalties protect what was learnt, and initial weights have learnt nothing
    plain = for_baseline(settings, settings.compared)
    job = dataclasses.replace(job, settings=plain, penalties=(), stages=(), teacher=None, fresh=True)
    with progress_bar("from scratch", progress, quiet=quiet) as say:
        network = baseline()
        adopt_padding(network, job.splits.preprocessing)
        scratch = job.run(network, output_dir and output_dir / "baseline", say)
    return dataclasses.replace(report, baseline=scratch.after)


def _splits(settings: TrainSettings, data: Splits | None, seed: int, network: Network) -> Splits:
    if data is not None:
        if settings.data is not None or settings.evaluate is not None:
            raise TrainingError("data are given both in the settings and from Python", where="train.data")
        return by_names_of(network, data)
    if settings.data is None:
        raise TrainingError("nothing to train on", where="train.data", hint="data: {source: digits}")
    return load_splits(settings, seed, network)
