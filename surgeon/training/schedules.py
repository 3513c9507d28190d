"""Curves of values that follow the progress of training: the built-in ones, and those of plugins."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.offers import signature_of
from surgeon.interfaces.returned import raised_in, refuse_return
from surgeon.interfaces.training import Schedule

Curve = Callable[..., float]
"""Called with the progress of training, from 0 to 1, and the schedule's options; ``peak`` multiplies the result."""


def dann(progress: float, *, gamma: float = 10.0) -> float:
    """Rise from 0 towards 1, steeply at first: Ganin & Lempitsky (2015)."""
    return 2 / (1 + math.exp(-gamma * progress)) - 1


def linear(progress: float) -> float:
    """Rise evenly from 0 to 1."""
    return progress


@hookimpl
def surgeon_schedules() -> Mapping[str, Curve]:
    """Register the built-in curves."""
    return {"dann": dann, "linear": linear}


def curve_of(schedule: Schedule, curves: Mapping[str, Curve]) -> Callable[[float], float]:
    """Return the function that computes a schedule's value from the progress of training.

    Raises:
        TrainingError: Its kind is unknown, or does not take its options.
    """
    where, kind = f"schedule of {schedule.buffer}", schedule.kind
    if kind not in curves:
        raise TrainingError(
            f"unknown kind of schedule {kind!r} (available: {', '.join(curves)})",
            where=where,
            hint=suggest(kind, curves),
        )
    curve = curves[kind]
    parameters = signature_of(curve).parameters
    options = dict(schedule.options)
    if "gamma" in parameters and "gamma" not in options and "gamma" in schedule.model_fields_set:
        options["gamma"] = schedule.gamma
    try:
        signature_of(curve).bind(0.0, **options)
    except TypeError as error:
        names = list(parameters)[1:]
        wrong = next((name for name in options if name not in names), "")
        raise TrainingError(
            f"the schedule {kind!r}: {error}",
            where=where,
            hint=suggest(wrong, names) or f"its options are: {', '.join(names) or 'none'}",
        ) from error

    def value(progress: float) -> float:
        call = f"the schedule {kind!r} at {progress:g}"
        result: Any = raised_in(curve, call, lambda: curve(progress, **options))
        if not isinstance(result, Real) or not math.isfinite(result):
            raise refuse_return(curve, call, "a finite number", result)
        return schedule.peak * float(result)

    return value
