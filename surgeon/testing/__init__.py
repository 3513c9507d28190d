"""Check what plugins offer for conformance with surgeon's promises, in the tests of their authors.

``check_operations``, ``check_compilation`` and ``check_composition`` take operations; ``check_provider``,
``check_source``, ``check_loss``, ``check_metric``, ``check_schedule``, ``check_penalty``, ``check_callback`` and
``check_family`` what else a plugin offers. Each raises an AssertionError that says what is wrong and how to mend it;
none needs the plugin to be installed. ``pytest_plugin.py`` makes a test of each promise. May import ``pipeline`` and
below. Read ``promises.py``. Names are imported when they are first used: a check of losses needs no Trainer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgeon.testing.conformance import check_compilation, check_composition, check_operations
    from surgeon.testing.metrics import check_metric
    from surgeon.testing.parts import check_callback, check_family, check_loss, check_provider, check_source
    from surgeon.testing.penalties import check_penalty
    from surgeon.testing.schedules import check_schedule

_HOME_OF = {
    name: f"surgeon.testing.{module}"
    for module, names in {
        "conformance": ("check_compilation", "check_composition", "check_operations"),
        "metrics": ("check_metric",),
        "parts": ("check_callback", "check_family", "check_loss", "check_provider", "check_source"),
        "penalties": ("check_penalty",),
        "schedules": ("check_schedule",),
    }.items()
    for name in names
}

__all__ = [
    "check_callback",
    "check_compilation",
    "check_composition",
    "check_family",
    "check_loss",
    "check_metric",
    "check_operations",
    "check_penalty",
    "check_provider",
    "check_schedule",
    "check_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'surgeon.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
