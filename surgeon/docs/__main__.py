"""Run ``python -m surgeon.docs [FOLDER]``."""

from __future__ import annotations

import sys
from pathlib import Path

from surgeon.docs.website import build

if __name__ == "__main__":
    sys.exit(build(Path(*sys.argv[1:2] or ["out/docs"])))
