"""Trainings that an artifact records, as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from surgeon.cli.render.evaluations import render_measures
from surgeon.cli.render.outcomes import stages_table


def render_trainings(trainings: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Show the measures before and after each training, then those of each output and domain after the last one."""
    parts: list[RenderableType] = []
    for number, training in enumerate(trainings, start=1):
        if len(trainings) > 1:
            parts.append(Text(f"training {number} of {len(trainings)}", style="bold"))
        parts += _training(training.get("report") or {})
        parts.append(Text())
    last = trainings[-1]
    tasks = (last.get("report") or {}).get("tasks") or {}
    names = {output: list((domains.get("all") or {}).get("per_class") or ()) for output, domains in tasks.items()}
    return Group(*parts, *render_measures(tasks, names))


def _training(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield stages_table(report.get("test_samples", 0), report["before"], report["after"], report.get("baseline"))
    line = f"trained {report['trainable']:,} parameters on {report['train_samples']:,} samples"
    if report.get("learning_rate"):
        line += f", learning rate {report['learning_rate']:g}"
    yield Text(line, style="dim")
