"""Name the distribution that this package is installed by, and its version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "surgeon-torch"
"""On the package index, ``surgeon`` is another project; our import and command are called ``surgeon``."""


def surgeon_version() -> str | None:
    """The installed version; None where the package is run from a folder that was not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None
