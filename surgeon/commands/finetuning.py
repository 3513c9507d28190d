"""The way from an edited skeleton through the training loop to an artifact."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from surgeon import engine
from surgeon.operation import Operation
from surgeon.plugins import Plugins
from surgeon.preparing import Prepared
from surgeon.recipe import operations_from
from surgeon.record import ATTRIBUTE
from surgeon.report.consoles import counting
from surgeon.training.report import TrainReport
from surgeon.training.session import train
from surgeon.training.settings import TrainSettings


def finetune(
    prepared: Prepared, settings: TrainSettings, *, plugins: Plugins, quiet: bool = False
) -> tuple[nn.Module, TrainReport]:
    """Let the weights flow in and train the result; returns it with the report, which its record keeps too."""
    with counting("reading", prepared.plan.bytes_written, quiet=quiet) as progress:
        model = prepared.materialise(progress)
    operations = prepared.recipe.operations
    seed = prepared.record.surgeries[-1].seed
    report = train(
        model,
        settings,
        objectives=[objective for operation in operations for objective in operation.objectives()],
        schedules=[schedule for operation in operations for schedule in operation.schedules()],
        seed=seed,
        baseline=lambda: from_scratch(prepared, plugins),
        quiet=quiet,
        plugins=plugins,
    )
    prepared.record.training.append({"settings": settings.model_dump(mode="json"), "report": measures(report)})
    return model, report


def from_scratch(prepared: Prepared, plugins: Plugins) -> nn.Module:
    """The same network with values of its builder's own, nothing of it frozen: what training alone achieves."""
    model = prepared.source.initialised()
    for past in prepared.record.surgeries:
        operations = [each for each in operations_from(past.operations, plugins) if each.name != "freeze"]
        if operations:
            model = _operated(model, operations, past.seed, past.roles, past.inputs, plugins)
    return model.requires_grad_(True)


def _operated(
    model: nn.Module, operations: list[Operation], seed: int, roles: object, inputs: object, plugins: Plugins
) -> nn.Module:
    return engine.apply(model, operations, seed=seed, roles=roles, inputs=inputs, plugins=plugins, inplace=True)


def save_trained(model: nn.Module, prepared: Prepared, path: Path, *, force: bool = False) -> Path:
    """Write the trained network with the record of its surgery and training."""
    setattr(model, ATTRIBUTE, prepared.record)
    return engine.save(model, path, force=force)


def measures(report: TrainReport) -> dict[str, object]:
    """The part of a report that is the same in every run: an artifact must not depend on the clock."""
    data = report.to_dict()
    return {
        key: value for key, value in data.items() if key not in {"seconds", "samples_per_second", "history", "device"}
    }
