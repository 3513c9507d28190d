"""Check schedules: compute a curve over the progress of training, and again from its end to its beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from surgeon.errors import SurgeonError
from surgeon.interfaces import offers
from surgeon.interfaces.training import Schedule
from surgeon.testing.global_state import unchanged_globals
from surgeon.training.schedules import curve_of

NAME = "curve"
POINTS = 100


def check_schedule(curve: Callable[..., float], **options: Any) -> list[float]:
    """Compute a curve from the beginning of training to its end, and the other way.

    Args:
        curve: The curve.
        **options: Its options, as in ``Schedule(kind=..., options=...)``.

    Returns:
        Its values at equal steps of progress, from 0 to 1.

    Raises:
        AssertionError: A promise is broken; the message says which, and how to mend it.
    """
    offers.schedules({NAME: curve})
    steps = [number / POINTS for number in range(POINTS + 1)]
    values = [_value(curve, options, progress) for progress in steps]
    again = [_value(curve, options, progress) for progress in reversed(steps)][::-1]
    for progress, first, second in zip(steps, values, again, strict=True):
        if first != second:
            raise AssertionError(
                f"the curve is {first:g} at {progress:g}, and {second:g} when it is asked again: it keeps something "
                "from call to call. A training that resumes asks from the middle on: compute from progress alone"
            )
    if len(set(values)) == 1:
        raise AssertionError(
            f"the curve is {values[0]:g} from beginning to end: does it read its first argument, the progress of "
            "training from 0 to 1 (not a count of steps)?"
        )
    return values


def _value(curve: Callable[..., float], options: dict[str, Any], progress: float) -> float:
    try:
        value_at = curve_of(Schedule(buffer="checked", kind=NAME, options=options), {NAME: curve})
        with unchanged_globals("the curve"):
            return value_at(progress)
    except SurgeonError as error:
        ends = "; training begins at 0 and ends at 1" if progress in (0, 1) else ""
        hint = f" ({error.hint})" if error.hint else ""
        raise AssertionError(f"{error.message}{ends}{hint}") from error
