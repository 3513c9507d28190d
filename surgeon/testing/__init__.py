"""Check operations for conformance with surgeon's promises, in the tests of plugin authors.

May import ``pipeline`` and below. Read ``conformance.py``.
"""

from surgeon.testing.conformance import check_operations

__all__ = ["check_operations"]
