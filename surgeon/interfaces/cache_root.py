"""Say where surgeon keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the folder ``$SURGEON_CACHE``, or else ``~/.cache/surgeon``."""
    return Path(os.environ.get("SURGEON_CACHE") or Path.home() / ".cache" / "surgeon")
