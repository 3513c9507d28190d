"""Check what plugins offer for conformance with surgeon's promises, in the tests of their authors.

``check_operations``, ``check_compilation`` and ``check_composition`` take operations; ``check_provider``,
``check_source``, ``check_loss``, ``check_metric``, ``check_schedule``, ``check_penalty``, ``check_callback`` and
``check_family`` what else a plugin offers. Each raises an AssertionError that says what is wrong and how to mend it;
none needs the plugin to be installed. ``pytest_plugin.py`` makes a test of each promise. May import ``pipeline`` and
below. Read ``promises.py``.
"""

from surgeon.testing.conformance import check_compilation, check_composition, check_operations
from surgeon.testing.metrics import check_metric
from surgeon.testing.parts import check_callback, check_family, check_loss, check_provider, check_source
from surgeon.testing.penalties import check_penalty
from surgeon.testing.schedules import check_schedule

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
