"""Remove the prefixes that wrappers leave in tensor names."""

from __future__ import annotations

from collections.abc import Iterable

from surgeon.checkpoint.contents import Checkpoint
from surgeon.checkpoint.statedict import ANYWHERE

LEADING = "module."
"""The attribute of DataParallel, DistributedDataParallel and AveragedModel that holds the wrapped module."""

AVERAGED = "n_averaged"
"""The counter of torch.optim.swa_utils.AveragedModel."""


def without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    """Remove the names of wrappers from the tensors' names, with a note for each.

    Only names that networks do not use are removed. A prefix such as ``model.`` may belong to the network: see
    :meth:`Checkpoint.prefix_candidates`.
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
    # if two names became equal, the wrapper's name would be part of the network's names
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
