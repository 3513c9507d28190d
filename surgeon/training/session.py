"""Fine-tuning: a model, settings and data in, a trained model and a report out."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from transformers import set_seed

from surgeon.errors import TrainingError
from surgeon.operation import Objective, Schedule
from surgeon.training.arguments import check_arguments, training_arguments
from surgeon.training.callbacks import ProgressCallback, ProgressReport, ScheduleCallback, progress_bar
from surgeon.training.data import Splits, load_data
from surgeon.training.losses import Loss, surgeon_losses
from surgeon.training.objectives import Target, call_model, default_objectives, prepare, takes_names
from surgeon.training.report import TrainReport
from surgeon.training.settings import TrainSettings
from surgeon.training.trainer import ObjectiveTrainer

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


def train(
    model: nn.Module,
    settings: TrainSettings,
    *,
    objectives: Sequence[Objective] = (),
    schedules: Sequence[Schedule] = (),
    seed: int = 0,
    output_dir: Path | None = None,
    baseline: Callable[[], nn.Module] | None = None,
    quiet: bool = False,
    progress: ProgressReport | None = None,
    plugins: Plugins | None = None,
    data: Splits | None = None,
) -> TrainReport:
    """Fine-tune ``model`` in place; what is frozen stays as it is. The model comes back in eval mode.

    The same model, settings, data and seed give byte-identical weights on one CPU with one number of threads.

    Args:
        model: What to train. Parameters without ``requires_grad`` never enter the optimizer.
        settings: The recipe's ``train:`` section.
        objectives: Losses that operations ask for, beside those of the settings.
        schedules: Buffers that follow the progress of training.
        seed: Draws the order of samples, dropout, and the labelled samples where the data name no seed.
        output_dir: Where checkpoints and logs go; a folder that is removed again if left out.
        baseline: Makes the same network with fresh weights, nothing of it frozen; for ``baseline: scratch``.
        quiet: Show no progress bar.
        progress: Told of every step, instead of the progress bar.
        plugins: Where more losses come from; only the built-in ones if left out.
        data: Datasets from Python, instead of ``settings.data``.

    Raises:
        TrainingError: Settings, data and model do not go together, or training diverges.
    """
    check_arguments(settings.arguments)
    splits = _splits(settings, data, seed)
    if settings.baseline == "scratch" and baseline is None:
        raise TrainingError(
            "a baseline from scratch needs a function that makes the same network with fresh weights",
            where="train.baseline",
            hint="pass baseline=..., or set baseline: none",
        )
    job = _Job(
        settings=settings,
        splits=splits,
        objectives=[*(settings.objectives or ()), *objectives],
        schedules=schedules,
        losses=plugins.losses() if plugins else surgeon_losses(),
        seed=seed,
    )
    with progress_bar("fine-tuning", progress, quiet=quiet) as say:
        report = job.run(model, output_dir, say)
    if settings.baseline == "none" or baseline is None:
        return report
    set_seed(seed)
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
    losses: Mapping[str, Loss]
    seed: int

    def run(self, model: nn.Module, output_dir: Path | None, progress: ProgressReport) -> TrainReport:
        """Train ``model`` in place and measure it before and after."""
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if not trainable:
            raise TrainingError(
                "every parameter of the model is frozen, so that there is nothing to train",
                hint="freeze less (freeze: all_but: head), or leave train: out",
            )
        targets = self._targets(model)
        home = next(model.parameters()).device
        with _folder(output_dir, self.settings) as folder:
            trainer = ObjectiveTrainer(
                model=model,
                args=training_arguments(self.settings, output_dir=folder, seed=self.seed),
                targets=targets,
                splits=self.splits,
                data_collator=default_collate,
                callbacks=[ScheduleCallback(model, self.schedules), ProgressCallback(progress)],
            )
            before = trainer.measure()
            started = time.perf_counter()
            with _explained(self.settings):
                trainer.train()
            seconds = time.perf_counter() - started
            after = trainer.measure()
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        if any(not math.isfinite(entry["loss"]) for entry in history):
            raise TrainingError(
                "training diverged: the loss is no longer a finite number",
                where="train.learning_rate",
                hint=f"use a smaller one than {self.settings.learning_rate:g}",
            )
        device = trainer.args.device
        model.to(home).eval()
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
        )

    def _targets(self, model: nn.Module) -> list[Target]:
        """Run one small batch, to find what does not go together before anything is trained."""
        first = default_collate([self.splits.train[i] for i in range(min(2, len(self.splits.train)))])  # type: ignore[arg-type]
        device = next(model.parameters()).device
        batch = {name: column.to(device) for name, column in first.items()}
        inputs = {name: batch[name] for name in self.splits.inputs}
        model.eval()
        try:
            with torch.no_grad():
                outputs = call_model(model, inputs, by_name=takes_names(model, self.splits.inputs))
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            raise _misfit(model, inputs, error) from error
        wanted = list(self.objectives)
        if self.settings.objectives is None:
            wanted = [*default_objectives(outputs, wanted), *wanted]
        return prepare(wanted, self.losses, outputs, batch, self.splits.classes)


def _splits(settings: TrainSettings, data: Splits | None, seed: int) -> Splits:
    if data is not None:
        if settings.data is not None or settings.evaluate is not None:
            raise TrainingError("data are given twice: in the settings and from Python", where="train.data")
        return data
    if settings.data is None:
        raise TrainingError("nothing to train on", where="train.data", hint="data: {source: digits}")
    splits = load_data(settings.data, seed)
    if settings.evaluate is None:
        return splits
    test = load_data(settings.evaluate, seed)
    if test.classes != splits.classes:
        raise TrainingError(
            f"data have {dict(splits.classes)} classes and evaluate has {dict(test.classes)}",
            where="train.evaluate.classes",
        )
    return Splits(splits.train, test.test, splits.inputs, splits.classes)


def _misfit(model: nn.Module, inputs: Mapping[str, Tensor], error: Exception) -> TrainingError:
    """What to say of a model that does not accept the data."""
    shapes = ", ".join(f"{name} {tuple(column.shape)}" for name, column in inputs.items())
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    hint = "set data.size and data.channels to what the model was made for"
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    pixels = inputs.get("pixel_values")
    if pixels is not None and pixels.ndim == 4 and channels not in (None, pixels.shape[1]):
        said = f"its first convolution takes {channels} channels and the data have {pixels.shape[1]}"
        hint = f"data.channels: {channels}"
    return TrainingError(f"the model does not accept a batch of {shapes}: {said}", where="train.data", hint=hint)


@contextlib.contextmanager
def _explained(settings: TrainSettings) -> Iterator[None]:
    """Turn what is known to go wrong in a training step into an error that says what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "a batch holds a single sample, of which BatchNorm can take no statistics",
            where="train.batch_size",
            hint=f"use another one than {settings.batch_size}, or arguments: {{dataloader_drop_last: true}}",
        ) from error


@contextlib.contextmanager
def _folder(output_dir: Path | None, settings: TrainSettings) -> Iterator[Path]:
    """Where the Trainer writes: what was given, or a folder that does not stay."""
    if output_dir is not None:
        yield output_dir
        return
    if settings.arguments.get("save_strategy", "no") != "no":
        raise TrainingError(
            "checkpoints are asked for, and there is no folder for them",
            where="train.arguments.save_strategy",
            hint="name an output folder (-o, output_dir=)",
        )
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        yield Path(folder)
