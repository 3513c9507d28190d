"""Describe what training consists of: losses, penalties, schedules, metrics, callbacks."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import surgeon.training
from surgeon.docs.rst import directive, heading, key, literal
from surgeon.interfaces.training import Penalty, Schedule
from surgeon.plugins import Plugins


def training_pages(plugins: Plugins) -> dict[str, str]:
    """Write the pages about losses, penalties, schedules, metrics and callbacks, by path."""
    return {
        "reference/losses.rst": _losses(plugins),
        "reference/penalties.rst": _penalties(),
        "reference/schedules.rst": _schedules(plugins),
        "reference/metrics.rst": _metrics(plugins),
        "reference/callbacks.rst": _callbacks(plugins),
    }


def penalties() -> Iterator[type[Penalty]]:
    """Yield the penalties in the package."""
    for module in pkgutil.walk_packages(surgeon.training.__path__, "surgeon.training."):
        import_module(module.name)
    for kind in Penalty.__subclasses__():
        if kind.__module__.startswith("surgeon."):
            yield kind


def _losses(plugins: Plugins) -> str:
    intro = (
        "``train.objectives`` names a loss for each output: ``{output: logits, label: labels, loss: cross_entropy}``; "
        "see :ref:`Objective <part-Objective>`. A loss returns one value per sample; the loss of a batch is the mean "
        "over all labelled elements, and what has no label counts for nothing."
    )
    losses = [_documented(name, loss) for name, loss in plugins.losses().items()]
    return "\n".join([heading("Losses", label="losses"), intro + "\n", *losses])


def _penalties() -> str:
    intro = "Terms that operations and ``train.distill`` add to the loss of every step."
    documented = [
        heading(kind.__name__, 1) + "\n" + directive("autoclass", f"{kind.__module__}.{kind.__name__}")
        for kind in penalties()
    ]
    return "\n".join([heading("Penalties", label="penalties"), intro + "\n", *documented])


def _schedules(plugins: Plugins) -> str:
    kinds = ", ".join(map(literal, plugins.schedules()))
    fields = [
        key(f"Schedule.{name}", field.description or "", _type_name(field.annotation))
        for name, field in Schedule.model_fields.items()
    ]
    intro = f"{inspect.cleandoc(Schedule.__doc__ or '')}\n\nOperations ask for them. There are the kinds {kinds}.\n"
    return "\n".join([heading("Schedules", label="schedules"), intro, *fields])


def _metrics(plugins: Plugins) -> str:
    intro = (
        "``train.metrics`` adds these to the metrics of each task, with their options: "
        "``{metric: calibration_error, bins: 10}``; so does ``surgeon evaluate --metric``.\n"
    )
    documented = [_documented(name, metric) for name, metric in plugins.metrics().items()]
    return "\n".join([heading("Metrics", label="metrics"), intro, *documented])


def _callbacks(plugins: Plugins) -> str:
    intro = "``train.callbacks`` names them, with their settings: ``{callback: early_stopping, patience: 3}``.\n"
    documented = [_documented(name, callback) for name, callback in plugins.callbacks().items()]
    return "\n".join([heading("Callbacks", label="callbacks"), intro, *documented])


def _documented(name: str, value: Callable[..., Any]) -> str:
    kind = "autoclass" if inspect.isclass(value) else "autofunction"
    return heading(name, 1) + "\n" + directive(kind, f"{value.__module__}.{value.__qualname__}")


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation)
