"""Define callbacks: scheduled values, progress reports, the epoch of datasets."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surgeon.errors import TrainingError, suggest, visible
from surgeon.interfaces.training import Schedule
from surgeon.training.schedules import Curve, curve_of, surgeon_schedules

ProgressReport: TypeAlias = Callable[[int, int, dict[str, float]], None]
"""Called as ``progress(step, steps, numbers)`` after every step, with the numbers last logged."""

PAUSE = 0.2
"""Seconds between two reads of numbers from the device."""


class ScheduleCallback(TrainerCallback):  # type: ignore[misc]
    """Set scalar buffers by the progress of training before each step; they end at p = 1.

    Args:
        model: The network.
        schedules: What sets its buffers.
        curves: The curves by the kinds of schedules. Default: the built-in ones.

    Raises:
        TrainingError: On creation, for an unknown kind, or a buffer that is missing or not a scalar.
    """

    def __init__(
        self, model: nn.Module, schedules: Sequence[Schedule], curves: Mapping[str, Curve] | None = None
    ) -> None:
        available = surgeon_schedules() if curves is None else curves
        self._values = [curve_of(schedule, available) for schedule in schedules]
        for schedule in schedules:
            _check(model, schedule)
        self.model = model
        self.schedules = list(schedules)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set every buffer to its value at this step."""
        self._set(state.global_step / max(1, state.max_steps))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set every buffer to its last value."""
        self._set(1.0)

    def values(self) -> dict[str, float]:
        """Return the values of the buffers."""
        return {schedule.buffer: self.model.get_buffer(schedule.buffer).item() for schedule in self.schedules}

    def _set(self, progress: float) -> None:
        # looked up each time: moving a model to a device replaces its buffers
        with torch.no_grad():
            for schedule, value in zip(self.schedules, self._values, strict=True):
                self.model.get_buffer(schedule.buffer).fill_(value(progress))


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Call ``progress`` after every step, with the numbers last logged and the current ones.

    Attributes:
        live: Returns the losses of the last step; called a few times a second, because it waits for the device.
    """

    def __init__(self, progress: ProgressReport, schedules: ScheduleCallback) -> None:
        self.progress = progress
        self.schedules = schedules
        self.live: Callable[[], dict[str, float]] = dict
        self.numbers: dict[str, float] = {}
        self._begun = (0, 0.0)
        self._checked_at = -math.inf

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the start time."""
        self._begun = (state.global_step, time.perf_counter())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the numbers last logged."""
        self.numbers = {**self.numbers, **(logs or {})}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report the progress."""
        if not state.is_world_process_zero:
            return
        now = time.perf_counter()
        if now - self._checked_at >= PAUSE or state.global_step >= state.max_steps:
            step, since = self._begun
            size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            pace = (state.global_step - step) * size / max(now - since, 1e-9)
            live = {**self.live(), **self.schedules.values(), "samples_per_second": pace}
            self.numbers = {**self.numbers, **live}
            self._checked_at = now
        self.progress(state.global_step, state.max_steps, self.numbers)


class EpochCallback(TrainerCallback):  # type: ignore[misc]
    """Set the epoch of a dataset that varies its samples, so that variations depend on it only."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(int(state.epoch or 0))


@contextlib.contextmanager
def progress_bar(title: str, progress: ProgressReport | None, *, quiet: bool) -> Iterator[ProgressReport]:
    """Yield ``progress``, or else a progress bar on stderr, if that is a terminal and ``quiet`` is not set."""
    if progress is not None:
        yield progress
        return
    console = Console(stderr=True, quiet=quiet or os.environ.get("RANK", "0") != "0")
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[numbers]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, numbers="")

        def report(step: int, steps: int, numbers: dict[str, float]) -> None:
            bar.update(task, completed=step, total=steps, numbers=in_words(numbers))

        yield report


def say_notes(notes: Sequence[str], *, quiet: bool) -> None:
    """Print notes about what was read and left out on stderr."""
    console = Console(stderr=True, quiet=quiet or os.environ.get("RANK", "0") != "0")
    for note in notes:
        console.print(visible(note), style="dim", markup=False, highlight=False)


def in_words(numbers: Mapping[str, float]) -> str:
    """Format the numbers of a step in one line: losses with domain accuracies, schedules, samples per second."""
    parts = []
    for name, value in numbers.items():
        if name == "loss" or (name.endswith("_loss") and not name.startswith("eval_")):
            output = name.removesuffix("_loss")
            accuracy = numbers.get(f"{output}_accuracy")
            parts.append(f"{output} {value:.3f}" + (f", {100 * accuracy:.0f} %" if accuracy is not None else ""))
        elif "." in name or name in ("strength", "λ"):
            parts.append(f"λ {value:.3f}")
    if pace := numbers.get("samples_per_second"):
        parts.append(f"{pace:,.0f} samples/s")
    return " · ".join(parts)


def _check(model: nn.Module, schedule: Schedule) -> None:
    buffers = dict(model.named_buffers())
    if schedule.buffer not in buffers:
        raise TrainingError(
            f"the model has no buffer {schedule.buffer!r} to schedule", hint=suggest(schedule.buffer, buffers)
        )
    buffer = buffers[schedule.buffer]
    if buffer.numel() != 1 or not buffer.is_floating_point():
        raise TrainingError(f"the buffer {schedule.buffer!r} is not a real scalar: shape {tuple(buffer.shape)}")
