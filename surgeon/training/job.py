"""Run one training: make its parts, train, evaluate before and after."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from surgeon.data.network import ANY, SIZES, Network
from surgeon.data.requirements import require
from surgeon.errors import TrainingError
from surgeon.interfaces.record import record_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.anatomy import Anatomy
from surgeon.training.arguments import training_arguments
from surgeon.training.batch_mixes import Mixing
from surgeon.training.callbacks import EpochCallback, ProgressCallback, ProgressReport, ScheduleCallback
from surgeon.training.checkpoints import describe_run, resume_from, start_run
from surgeon.training.column_values import digest_of
from surgeon.training.data_fit import first_outputs, folder_for, step_errors_explained
from surgeon.training.detection import DETECTIONS, check_settings
from surgeon.training.direction import refuse_seen_tokens
from surgeon.training.early_stopping import make_callbacks, surgeon_callbacks, wanted_arguments
from surgeon.training.foreign import foreign_errors_explained
from surgeon.training.further_metrics import Further, by_output, keeping, make_further, surgeon_metrics, tolerant
from surgeon.training.label_check import check_labels, described
from surgeon.training.metrics import COLUMNS, by_task_and_domain, task_of
from surgeon.training.objectives import Target, call_of
from surgeon.training.options import class_names
from surgeon.training.parameter_groups import rate_factors
from surgeon.training.parts import make_cache, make_norms, make_targets, make_terms
from surgeon.training.rates import find_rate, resolved
from surgeon.training.report import TrainReport
from surgeon.training.stages import Unfreezing
from surgeon.training.teacher import check_same_task, numbered, penalty_of, shared
from surgeon.training.test_views import TestViews
from surgeon.training.trainer import ObjectiveTrainer
from surgeon.training.weight_averages import Averaging
from surgeon.training.wrappers import restored

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


@dataclass(frozen=True)
class Job:
    """The settings that the fine-tuned network and its baseline share."""

    settings: TrainSettings
    splits: Splits
    objectives: Sequence[Objective]
    schedules: Sequence[Schedule]
    penalties: Sequence[Penalty]
    stages: Sequence[Stage]
    plugins: Plugins | None
    seed: int
    checkpoints: bool
    network: Network = ANY
    """What the data must fit."""
    teacher: nn.Module | None = None
    """The teacher of the network, if it has one."""
    fresh: bool = False
    """Whether the network starts from initial weights."""

    def run(
        self, model: nn.Module, output_dir: Path | None, progress: ProgressReport, *, resume: bool = False
    ) -> TrainReport:
        """Train ``model`` in place and evaluate it before and after."""
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if not trainable:
            raise TrainingError(
                "every parameter of the model is frozen, so there is nothing to train",
                hint="freeze less (freeze: all_but: head), or leave train: out",
            )
        anatomy = Anatomy(model, self.plugins)
        settings = resolved(self.settings, model, anatomy, fresh=self.fresh)
        if SIZES in self.splits.inputs:
            check_settings(settings)
            require("detection", "measuring detections")
        outputs, batch = first_outputs(model, self.splits)
        targets = make_targets(
            model, settings, self.splits, self.objectives, self.penalties, self.plugins, outputs, batch
        )
        refuse_seen_tokens(model, call_of(model, self.splits.inputs), batch, outputs, targets)
        penalties, splits = list(self.penalties), self.splits
        if settings.distill is not None and self.teacher is not None:
            lesson = penalty_of(settings.distill, outputs)
            check_same_task(model, self.teacher, settings, splits, targets, lesson.output)
            targets, splits = shared(targets, lesson), numbered(settings, splits)
            penalties.append(lesson)
        check_labels(targets, outputs, batch, self.splits)
        tasks = [task_of(target, outputs, batch) for target in targets]
        epochs = None if "max_steps" in settings.arguments else settings.epochs
        waiting = Unfreezing(model, self.stages, anatomy, epochs) if self.stages else None
        factors = rate_factors(model, settings.optimizer, anatomy)
        home = next(model.parameters()).device
        scheduled = ScheduleCallback(model, self.schedules, self.plugins.schedules() if self.plugins else None)
        further = make_further(settings.metrics, self.plugins.metrics() if self.plugins else surgeon_metrics())
        targets = keeping(targets, tasks, further)
        progress_callback = ProgressCallback(progress, scheduled)
        offered = self.plugins.callbacks() if self.plugins else surgeon_callbacks()
        named = make_callbacks(settings.callbacks, offered)
        averaging = Averaging(model, settings.average, call_of(model, self.splits.inputs)) if settings.average else None
        callbacks = [scheduled, progress_callback, EpochCallback(self.splits.train), waiting, *named, averaging]
        with (
            folder_for(output_dir, settings) as folder,
            restored(model),
            foreign_errors_explained(self.plugins),
            step_errors_explained(settings),
        ):
            last = self._last_checkpoint(model, folder, resume) if output_dir is not None else None
            args = training_arguments(
                settings,
                output_dir=folder,
                seed=self.seed,
                checkpoints=self.checkpoints and output_dir is not None,
                extra=wanted_arguments(named),
            )
            trainer = ObjectiveTrainer(
                model=model,
                args=args,
                settings=settings,
                targets=targets,
                splits=splits,
                factors=factors,
                waiting=waiting,
                norms=make_norms(model, settings, self.splits),
                cache=make_cache(model, settings, splits, self.stages, args.device),
                averaging=averaging,
                mixing=Mixing(settings.mix, targets, outputs, batch, self.seed) if settings.mix else None,
                views=self._views(settings, targets, tasks),
                callbacks=[callback for callback in callbacks if callback is not None],
            )
            progress_callback.live = trainer.live
            before = trainer.measure()
            added = self._further(further, trainer, tasks)
            if settings.learning_rate == "find":
                args.learning_rate = find_rate(trainer)
            with ExitStack() as ending:
                reached = {name: output.requires_grad for name, output in outputs.items()}
                trainer.penalties = make_terms(
                    penalties,
                    model,
                    self.splits,
                    anatomy,
                    targets,
                    reached,
                    trainer,
                    ending,
                    self.seed,
                    self.network,
                    example=batch,
                    plugins=self.plugins,
                    teacher=self.teacher,
                )
                started = time.perf_counter()
                trainer.train(resume_from_checkpoint=last)
                seconds = time.perf_counter() - started
            history = trainer.history()
            trainer.guard.check_weights(trainer.state)
            after = trainer.measure()
            measured = by_task_and_domain(
                targets,
                tasks,
                trainer.measured,
                trainer.widths,
                self.splits.domains,
                self._names(model, targets, outputs),
                tolerant(added),
            )
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
            device=str(trainer.args.device),
            seed=self.seed,
            tasks=measured,
            learning_rate=float(args.learning_rate),
            validation_samples=0 if self.splits.validation is None else len(self.splits.validation),  # type: ignore[arg-type]
            data=described(self.splits),
        )

    def _views(
        self, settings: TrainSettings, targets: Sequence[Target], tasks: Sequence[str | None]
    ) -> TestViews | None:
        if not settings.test_views:
            return None
        kinds = {target.objective.output: task for target, task in zip(targets, tasks, strict=True)}
        return TestViews(settings.test_views, kinds)

    def _further(
        self, further: Sequence[Further], trainer: ObjectiveTrainer, tasks: Sequence[str | None]
    ) -> dict[str, dict[str, Further]]:
        """Sort the metrics that the recipe adds by output, and try them on the network as it is before training."""
        outputs = [target.objective.output for target in trainer.targets]
        widths = [width - len(COLUMNS) for width in trainer.widths]
        kinds = dict(zip(outputs, tasks, strict=True))
        added = by_output(further, kinds, dict(zip(outputs, widths, strict=True)))
        if added:
            by_task_and_domain(trainer.targets, tasks, trainer.measured, trainer.widths, (), further=added)
        return added

    def _names(
        self, model: nn.Module, targets: Sequence[Target], outputs: Mapping[str, Tensor]
    ) -> dict[str, list[str]]:
        names = {}
        for target in targets:
            output = outputs[target.objective.output]
            count = output.shape[-1] if output.ndim < 4 else output.shape[1]
            label = target.objective.label
            if target.objective.output == DETECTIONS:
                names[label] = list(self.splits.names.get(label, ()))
                continue
            called = class_names(model, self.splits, label, count)
            if called is None and (head := self.network.heads.get(label)) and len(head.names) == count:
                called = list(head.names)
            if called is not None:
                names[label] = called
        return names

    def _last_checkpoint(self, model: nn.Module, folder: Path, resume: bool) -> str | None:
        """Return the checkpoint to resume from; None to start."""
        operations = {
            "objectives": [objective.model_dump(mode="json") for objective in self.objectives],
            "schedules": [schedule.model_dump(mode="json") for schedule in self.schedules],
            "penalties": [[type(p).__name__, p.model_dump(mode="json")] for p in self.penalties],
            "stages": [stage.model_dump(mode="json") for stage in self.stages],
        }
        data = {
            "classes": dict(self.splits.classes),
            "names": {name: list(names) for name, names in getattr(self.splits, "names", {}).items()},
            "training samples": digest_of(self.splits.train, self.splits.inputs),
            "test samples": digest_of(self.splits.test, self.splits.inputs),
        }
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        settings = self.settings.model_dump(mode="json")
        run = describe_run(model, settings, self.seed, operations, processes, data, self.teacher)
        if resume:
            return resume_from(folder, run)
        if int(os.environ.get("RANK", "0")) == 0:
            start_run(folder, run)
        return None
