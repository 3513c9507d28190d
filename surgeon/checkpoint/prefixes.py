"""Remove the prefixes that wrappers leave in tensor names."""

from __future__ import annotations

from collections.abc import Iterable

from surgeon.checkpoint.contents import Checkpoint
from surgeon.checkpoint.statedict import ANYWHERE

LEADING = "module."
"""DataParallel's, DistributedDataParallel's and AveragedModel's name for what they wrap."""

AVERAGED = "n_averaged"
"""The counter that torch.optim.swa_utils.AveragedModel keeps beside the model."""


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """Give the tensors the names of the network inside its wrappers, with a note for each taken off.

    Only names that no network would choose are taken off. A prefix such as ``model.`` may be the network's
    own: see :meth:`Checkpoint.prefix_candidates`.
    """
    before = None
    while before is not checkpoint:
        before = checkpoint
        checkpoint = _without_leading(_without_inner(checkpoint))
    return checkpoint


def _without_inner(checkpoint: Checkpoint) -> Checkpoint:
    names: dict[str, str] = {}
    gone: set[str] = set()
    for name in checkpoint.entries:
        parts = name.split(".")
        gone |= ANYWHERE.intersection(parts)
        names[name] = ".".join(part for part in parts if part not in ANYWHERE)
    # Where two names would become one, the wrapper's name means something here.
    if not gone or len(set(names.values())) < len(names) or "" in names.values():
        return checkpoint
    count = sum(old != new for old, new in names.items())
    listed = ", ".join(f"'{part}.'" for part in sorted(gone))
    return checkpoint.renamed(names, f"{listed} stripped from {count} tensor names")


def _without_leading(checkpoint: Checkpoint) -> Checkpoint:
    names: Iterable[str] = checkpoint.entries
    wrapped = [name for name in names if name != AVERAGED]
    if not wrapped or not all(name.startswith(LEADING) and name != LEADING for name in wrapped):
        return checkpoint
    return checkpoint.without_prefix(LEADING)
