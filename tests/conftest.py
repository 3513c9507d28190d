"""Set up the whole suite."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Exclude what is imported by now from garbage collection: torch and transformers make a million objects that stay,
    and each full collection, of which accelerate asks one a training, would walk through all of them again."""
    gc.collect()
    gc.freeze()
