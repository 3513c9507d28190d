"""The conformance kit: what every operation has to hold to, for the tests of plugin authors."""

from surgeon.testing.conformance import check_operations

__all__ = ["check_operations"]
