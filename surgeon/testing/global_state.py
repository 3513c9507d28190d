"""Compare torch's global state before and after an author's code runs, and restore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

State = dict[str, object]


def read_state() -> State:
    """Read what all code of a process shares, by name."""
    return {
        "the mode of gradients": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def restore(state: State) -> None:
    """Set again what :func:`read_state` has read."""
    torch.set_grad_enabled(bool(state["the mode of gradients"]))
    torch.set_default_dtype(state["the default dtype"])  # type: ignore[arg-type]
    torch.use_deterministic_algorithms(bool(state["deterministic algorithms"]))


def difference(before: State, after: State) -> str:
    """Say what has changed."""
    return ", ".join(f"{name}: {before[name]} → {after[name]}" for name in before if before[name] != after[name])


@contextmanager
def unchanged_globals(what: str) -> Iterator[None]:
    """Run a block that must neither draw from torch's random numbers, nor seed them, nor change a global setting.

    Raises:
        AssertionError: It does; the message calls the author's code ``what``.
    """
    before, draws = read_state(), torch.get_rng_state()
    try:
        yield
        after, drawn = read_state(), not torch.equal(draws, torch.get_rng_state())
    finally:
        restore(before)
        torch.set_rng_state(draws)
    if after != before:
        raise AssertionError(
            f"{what} changes torch's global state ({difference(before, after)}): all other code of the process is "
            "affected. Use it as a context: with torch.no_grad(): …"
        )
    if drawn:
        raise AssertionError(
            f"{what} draws or seeds torch's random numbers, so that training goes on with others: compute without "
            "chance, or draw from a torch.Generator with a seed of its own"
        )
