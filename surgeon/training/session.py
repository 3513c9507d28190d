"""Fine-tuning: a model, settings and data in, a trained model and a report out."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import set_seed

from surgeon.data.combine import load_source
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.record import record_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage, Term
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.arguments import check_arguments, training_arguments
from surgeon.training.callbacks import EpochCallback, ProgressCallback, ProgressReport, ScheduleCallback, progress_bar
from surgeon.training.checkpoints import describe_run, resume_from, start_run
from surgeon.training.domains import SeparateNorms
from surgeon.training.features import FeatureCache
from surgeon.training.fitting import first_outputs, folder_for, step_errors_explained
from surgeon.training.load_splits import load_splits, sources_of, stated_for
from surgeon.training.losses import surgeon_losses
from surgeon.training.metrics import by_task_and_domain
from surgeon.training.objectives import Call, Target, default_objectives, prepare
from surgeon.training.optimizing import rate_factors
from surgeon.training.penalties import Run
from surgeon.training.report import TrainReport
from surgeon.training.stopping import make_callbacks, surgeon_callbacks, wanted_arguments
from surgeon.training.trainer import ObjectiveTrainer
from surgeon.training.unfreezing import Unfreezing

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
        progress: Told of every step, instead of the progress bar.
        plugins: Where more losses come from; only the built-in ones if left out.
        data: Datasets from Python, instead of ``settings.data``.

    Raises:
        TrainingError: Settings, data and model do not go together, training diverges, or there is no such run to
            resume.
    """
    check_arguments(settings.arguments)
    splits = _splits(model, settings, data, seed)
    if settings.baseline == "scratch" and baseline is None:
        raise TrainingError(
            "a baseline from scratch needs a function that makes the same network with fresh weights",
            where="train.baseline",
            hint="pass baseline=..., or set baseline: none",
        )
    if resume and output_dir is None:
        raise TrainingError("nothing to resume from: no folder of checkpoints is given", hint="name it: output_dir=")
    job = _Job(
        settings=settings,
        splits=splits,
        objectives=[*(settings.objectives or ()), *objectives],
        schedules=schedules,
        penalties=penalties,
        stages=stages,
        plugins=plugins,
        seed=seed,
        checkpoints=checkpoints,
    )
    with progress_bar("fine-tuning", progress, quiet=quiet) as say:
        report = job.run(model, output_dir, say, resume=resume)
    if settings.baseline == "none" or baseline is None:
        return report
    set_seed(seed)
    # what is held to its start, or waits, does so for what it has learnt, and from scratch there is nothing
    free = settings.model_copy(update={"features": "none"})  # and nothing is frozen there
    job = dataclasses.replace(job, settings=free, penalties=(), stages=())
    with progress_bar("from scratch", progress, quiet=quiet) as say:
        scratch = job.run(baseline(), output_dir and output_dir / "baseline", say)
    return dataclasses.replace(report, baseline=scratch.after)


@dataclass(frozen=True)
class _Job:
    """All that the fine-tuned network and its baseline have in common."""

    settings: TrainSettings
    splits: Splits
    objectives: Sequence[Objective]
    schedules: Sequence[Schedule]
    penalties: Sequence[Penalty]
    stages: Sequence[Stage]
    plugins: Plugins | None
    seed: int
    checkpoints: bool

    def run(
        self, model: nn.Module, output_dir: Path | None, progress: ProgressReport, *, resume: bool = False
    ) -> TrainReport:
        """Train ``model`` in place and measure it before and after."""
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if not trainable:
            raise TrainingError(
                "every parameter of the model is frozen, so that there is nothing to train",
                hint="freeze less (freeze: all_but: head), or leave train: out",
            )
        settings = self.settings
        targets, reached = self._targets(model)
        anatomy = Anatomy(model, self.plugins)
        epochs = None if "max_steps" in settings.arguments else settings.epochs
        waiting = Unfreezing(model, self.stages, anatomy, epochs) if self.stages else None
        factors = rate_factors(model, settings.optimizer, anatomy)
        home = next(model.parameters()).device
        scheduled = ScheduleCallback(model, self.schedules)
        told = ProgressCallback(progress, scheduled)
        callbacks: list[Any] = [scheduled, told]
        callbacks.append(EpochCallback(self.splits.train))
        callbacks += [waiting] if waiting else []
        known = self.plugins.callbacks() if self.plugins else surgeon_callbacks()
        asked = make_callbacks(settings.callbacks, known)
        with folder_for(output_dir, settings) as folder:
            last = self._last_checkpoint(model, folder, resume) if output_dir is not None else None
            args = training_arguments(
                settings,
                output_dir=folder,
                seed=self.seed,
                checkpoints=self.checkpoints and output_dir is not None,
                wanted=wanted_arguments(asked),
            )
            trainer = ObjectiveTrainer(
                model=model,
                args=args,
                settings=settings,
                targets=targets,
                splits=self.splits,
                factors=factors,
                waiting=waiting,
                norms=self._norms(model),
                cache=self._cache(model, args.device),
                callbacks=[*callbacks, *asked],
            )
            told.live = trainer.live
            before = trainer.measure()
            with ExitStack() as ending:
                trainer.penalties = self._terms(model, anatomy, targets, reached, trainer, ending)
                started = time.perf_counter()
                with step_errors_explained(settings):
                    trainer.train(resume_from_checkpoint=last)
                seconds = time.perf_counter() - started
            after = trainer.measure()
            tasks = by_task_and_domain(targets, trainer.measured, self.splits.domains)
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        if any(not math.isfinite(entry["loss"]) for entry in history):
            raise TrainingError(
                "training diverged: the loss is no longer a finite number",
                where="train.learning_rate",
                hint=f"use a smaller one than {settings.learning_rate:g}",
            )
        device = trainer.args.device
        model.to(home).eval()
        if (record := record_of(model)) is not None:
            record.preprocessing |= dict(self.splits.preprocessing)
        samples = len(self.splits.train)  # type: ignore[arg-type]
        return TrainReport(
            before=before,
            after=after,
            baseline=None,
            history=tuple(history),
            seconds=seconds,
            samples_per_second=samples * (trainer.state.epoch or 0.0) / seconds,
            trainable=trainable,
            train_samples=samples,
            test_samples=len(self.splits.test),  # type: ignore[arg-type]
            device=str(device),
            seed=self.seed,
            tasks=tasks,
        )

    def _last_checkpoint(self, model: nn.Module, folder: Path, resume: bool) -> str | None:
        """Where to go on from; None to begin."""
        asked = {
            "objectives": [each.model_dump(mode="json") for each in self.objectives],
            "schedules": [each.model_dump(mode="json") for each in self.schedules],
            "penalties": [[type(each).__name__, each.model_dump(mode="json")] for each in self.penalties],
            "stages": [each.model_dump(mode="json") for each in self.stages],
        }
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        run = describe_run(model, self.settings.model_dump(mode="json"), self.seed, asked, processes)
        if resume:
            return resume_from(folder, run)
        if int(os.environ.get("RANK", "0")) == 0:
            start_run(folder, run)
        return None

    def _targets(self, model: nn.Module) -> tuple[list[Target], dict[str, bool]]:
        """Run one small batch, to find what does not go together before anything is trained.

        Returns the objectives, ready to compute, and of each output whether a gradient reaches it.
        """
        outputs, batch = first_outputs(model, self.splits)
        wanted = list(self.objectives)
        if self.settings.objectives is None:
            held = {name for penalty in self.penalties for name in penalty.conserved()}
            free = {name: output for name, output in outputs.items() if name not in held}
            if not (free or wanted):
                raise TrainingError(
                    f"all that the model returns is conserved ({', '.join(held)}), so that nothing is learnt",
                    where="train.objectives",
                    hint="put a new head beside the old one: multitask with original: keep",
                )
            wanted = [*(default_objectives(free, wanted) if free else ()), *wanted]
        losses = self.plugins.losses() if self.plugins else surgeon_losses()
        targets = prepare(wanted, losses, outputs, batch, self.splits.classes)
        return targets, {name: output.requires_grad for name, output in outputs.items()}

    def _cache(self, model: nn.Module, device: torch.device) -> FeatureCache | None:
        if self.settings.features == "none":
            return None
        if self.stages:
            raise TrainingError(
                "features cannot be cached: what is to be unfrozen would not be trained by them",
                where="train.features",
                hint="freeze it for good, or features: none",
            )
        for name in ("torch_compile", "bf16", "fp16", "fsdp", "deepspeed"):
            if self.settings.arguments.get(name):
                raise TrainingError(
                    f"features cannot be cached: {name} makes of the network what would not be the same",
                    where="train.features",
                    hint=f"leave {name} out, or features: none",
                )
        return FeatureCache(model.to(device), self.splits)

    def _norms(self, model: nn.Module) -> SeparateNorms | None:
        if self.settings.domain_bn == "mixed":
            return None
        if "domain" not in self.splits.train[0]:
            raise TrainingError(
                "domain_bn: separate goes by the column 'domain', which the data lack",
                where="train.domain_bn",
                hint="give every source its domain: data: [{…, domain: photos}, {…, domain: sketches}]",
            )
        keep = self.settings.domain_statistics
        if keep is not None and keep not in self.splits.domains:
            raise TrainingError(
                f"no source has the domain {keep!r}",
                where="train.domain_statistics",
                hint=suggest(keep, self.splits.domains),
            )
        return SeparateNorms(model, None if keep is None else self.splits.domains.index(keep))

    def _terms(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        targets: Sequence[Target],
        reached: dict[str, bool],
        trainer: ObjectiveTrainer,
        ending: ExitStack,
    ) -> list[Term]:
        if not self.penalties:
            return []
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise TrainingError(
                "penalties compare whole parameters, which FSDP and DeepSpeed take apart",
                where="train.arguments",
                hint="train on one device or with DDP, or leave conserve out",
            )
        run = Run(
            model=model,
            call=Call.of(model, self.splits.inputs),
            anatomy=anatomy,
            outputs=reached,
            trained={target.objective.output for target in targets if target.objective.weight},
            load=lambda source: load_source(source, self.seed, stated_for(model, [source])),
            seed=self.seed,
            ending=ending,
        )
        return [penalty.begin(run) for penalty in self.penalties]


def _splits(model: nn.Module, settings: TrainSettings, data: Splits | None, seed: int) -> Splits:
    if data is not None:
        if settings.data is not None or settings.evaluate is not None:
            raise TrainingError("data are given twice: in the settings and from Python", where="train.data")
        return data
    if settings.data is None:
        raise TrainingError("nothing to train on", where="train.data", hint="data: {source: digits}")
    return load_splits(settings, seed, stated_for(model, sources_of(settings)))
