"""Record which plugins offered the parts of a network and its training, and compare that with what is installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from surgeon.data.sources import BUNDLED, as_sources
from surgeon.errors import SurgeonWarning, TrainingError
from surgeon.interfaces.data import source_name
from surgeon.interfaces.operation import training_requests
from surgeon.interfaces.record import Record
from surgeon.interfaces.returned import is_ours, origin_of
from surgeon.interfaces.training import Objective, Penalty, Schedule
from surgeon.plugins import Plugins
from surgeon.recipe.load import Recipe
from surgeon.recipe.train_settings import TrainSettings


def foreign(plugins: Plugins, used: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return those of the parts ``used`` that come from plugins.

    Args:
        plugins: The plugins.
        used: Names by kind: operation, architecture, source, loss, metric, callback, schedule.

    Returns:
        The origin of each, by kind and name: a distribution with its version, ``{"operation lora": "surgeon-lora
        0.3"}``, or the file or module given to ``--plugin``.
    """
    parts = [(kind, name) for kind, names in used.items() for name in sorted(set(names))]
    return {f"{kind} {name}": maker for kind, name in parts if (maker := plugins.maker(kind, name))}


def foreign_penalties(penalties: Iterable[Penalty]) -> dict[str, str]:
    """Return the origin of each penalty that is not surgeon's own; penalties are classes without a registered name."""
    return {f"penalty {type(p).__name__}": origin_of(type(p)) for p in penalties if not is_ours(type(p))}


def recorded_parts(record: Record) -> dict[str, str]:
    """Return the origins that an artifact records for all that plugins offered, except operations."""
    origins: list[Mapping[str, str]] = [surgeries.plugins for surgeries in record.surgeries]
    origins += [training.get("plugins") or {} for training in record.training]
    return {
        part: origin for plugins in origins for part, origin in plugins.items() if not part.startswith("operation ")
    }


def compare_parts(record: Record, plugins: Plugins, where: str) -> None:
    """Warn, once for each distribution, where another version of it is installed than an artifact was made with.

    Operations are compared when they are made again; see ``recorded.py``.
    """
    installed = dict(plugins.distributions.values())
    for part, origin in recorded_parts(record).items():
        distribution, _, version = origin.rpartition(" ")
        now = installed.get(distribution)
        if now is None or now == version or (origin, f"{distribution} {now}") in plugins.compared:
            continue
        plugins.compared.add((origin, f"{distribution} {now}"))
        warnings.warn(
            f"{where} was made with the {part} of {origin}; {distribution} {now} is installed: surgeon check compares "
            "the outputs",
            SurgeonWarning,
            stacklevel=2,
        )


def parts_of_training(
    settings: TrainSettings, objectives: Iterable[Objective], schedules: Iterable[Schedule]
) -> dict[str, list[str]]:
    """Name by kind what a training uses: its losses, metrics, callbacks, schedules and sources of data."""
    sources = [source for data in (settings.data, settings.evaluate) if data is not None for source in as_sources(data)]
    return {
        "loss": [objective.loss for objective in objectives],
        "metric": [m if isinstance(m, str) else m.metric for m in settings.metrics],
        "callback": [c if isinstance(c, str) else c.callback for c in settings.callbacks],
        "schedule": [schedule.kind for schedule in schedules],
        "source": [source_name(type(source)) for source in sources if type(source) not in BUNDLED],
    }


def refuse_missing_parts(record: Record, recipe: Recipe, plugins: Plugins, where: str) -> None:
    """Refuse to train an artifact further where what its training used is not installed.

    Raises:
        TrainingError: A loss, metric, callback or schedule is missing; the error names the distribution to install.
    """
    if recipe.train is None:
        return
    requests = training_requests(recipe.operations)
    used = parts_of_training(recipe.train, [*(recipe.train.objectives or ()), *requests.objectives], requests.schedules)
    needed = recorded_parts(record)
    for kind, names in used.items():
        for name in names:
            if f"{kind} {name}" in needed and not plugins.has(kind, name):
                hint = plugins.hint(kind, name, (), see="surgeon plugins", needed=needed)
                raise TrainingError(
                    f"the {kind} {name!r}, which it was trained with, is missing", where=where, hint=hint
                )
