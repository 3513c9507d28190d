"""Detect another project's package of the same name, whose files may have replaced some of surgeon's."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from surgeon.interfaces.distribution import DISTRIBUTION

OTHER = "surgeon"


def name_clash() -> str | None:
    """Return a warning if the distribution ``surgeon``, another project, has files in this package's folder."""
    try:
        installed = distribution(OTHER)
    except PackageNotFoundError:
        return None
    if not any(file.parts and file.parts[0] == "surgeon" for file in installed.files or ()):
        return None
    return (
        f"the distribution '{OTHER}' {installed.version} is another project whose files overwrite '{DISTRIBUTION}': "
        f"python -m pip uninstall {OTHER}, then python -m pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )
