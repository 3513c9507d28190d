"""Compare the tensors of a skeleton with the entries of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from surgeon.checkpoint.formats import Checkpoint
from surgeon.interfaces.match import Fit

# BatchNorm's counter: missing in files older than torch 0.4.1 and of torchvision's detectors, whose networks count no
# batches. It does not affect a forward unless momentum is None.
COUNTER = re.compile(r"(^|\.)num_batches_tracked$")


def shapes_of(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Return the shape of every entry."""
    return {name: tuple(entry.shape) for name, entry in checkpoint.entries.items()}


def fit(
    skeleton: nn.Module,
    checkpoint: Checkpoint,
    naming: Mapping[str, str],
    harmless: re.Pattern[str] | None = None,
) -> Fit:
    """Match the tensors of ``skeleton`` with the entries of ``checkpoint``.

    Args:
        skeleton: The network.
        checkpoint: The checkpoint.
        naming: Name in the file → name in the skeleton.
        harmless: Matches names in the file that may be left over.
    """
    result = Fit()
    tensors = skeleton.state_dict(keep_vars=True)
    entries: dict[str, str] = {}
    for name in checkpoint.entries:
        entries.setdefault(naming[name], name)
    twins: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        twins.setdefault(id(tensor), []).append(name)
    for name, tensor in tensors.items():
        source = next((entries[twin] for twin in [name, *twins[id(tensor)]] if twin in entries), None)
        if source is None:
            # state_dict lists a norm's statistics before its counter: if they are present, the counter can be filled
            statistics = f"{name.removesuffix('num_batches_tracked')}running_mean"
            filled = COUNTER.search(name) and statistics in result.mapping
            (result.filled if filled else result.missing).append(name)
            continue
        result.mapping[name] = source
        have, want = tuple(checkpoint.entries[source].shape), tuple(tensor.shape)
        if have != want:
            result.misshaped[name] = (want, have)
    for name in checkpoint.entries:
        if naming[name] not in tensors or entries[naming[name]] != name:
            spare = COUNTER.search(name) or name in checkpoint.aliases or (harmless and harmless.search(naming[name]))
            (result.dropped if spare else result.unexpected).append(name)
    return result


def naming_notes(naming: Mapping[str, str]) -> list[str]:
    """Return a note if names in the file were mapped to others."""
    renamed = [(old, new) for old, new in naming.items() if old != new]
    if not renamed:
        return []
    old, new = renamed[0]
    return [f"{len(renamed)} tensors renamed, such as {old} → {new}"]
