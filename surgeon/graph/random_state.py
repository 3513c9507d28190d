"""Seed the random number generators within a block, and restore their states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's CPU generator, NumPy and ``random`` within the block, and restore all three afterwards.

    Code that builds networks draws from any of the three: a network must not depend on what ran before.
    """
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
