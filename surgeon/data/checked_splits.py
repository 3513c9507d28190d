"""Check what a plugin's data source returns, so that the rest of surgeon may rely on it."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import torch
from torch import Tensor

from surgeon.errors import SurgeonError
from surgeon.interfaces.data import Source
from surgeon.interfaces.returned import described, is_ours, raised_in, refuse_return
from surgeon.interfaces.splits import Splits


def load_checked(source: Source, seed: int) -> Splits:
    """Load a source's splits, and look at the first sample of each of their parts.

    Raises:
        PluginError: ``load`` of a plugin's source returned something else, or samples that are not mappings of tensors.
    """
    if is_ours(source):
        return source.load(seed)
    call = f"{type(source).__name__}.load(seed)"
    splits: Any = raised_in(source, call, lambda: source.load(seed), (SurgeonError,))
    if not isinstance(splits, Splits):
        hint = "surgeon.Splits(train, test, inputs=(...), classes={...})" if isinstance(splits, tuple) else None
        raise refuse_return(source, call, "Splits: the parts of the data, and what its columns are", splits, hint)
    parts: dict[str, Any] = {"train": splits.train, "test": splits.test, "validation": splits.validation}
    for part, samples in parts.items():
        if samples is None and part == "validation":
            continue
        if not isinstance(samples, Sized) or not hasattr(samples, "__getitem__"):
            raise refuse_return(source, f"{part} of {call}", "a dataset with a length, read by position", samples)
        if len(samples):
            _check_sample(source, f"{part}[0] of {call}", samples[0], splits)
    _check_batch(source, splits)
    return splits


def _check_sample(source: Source, call: str, sample: Any, splits: Splits) -> None:
    if not isinstance(sample, Mapping):
        hint = "give each column its name: {'pixel_values': image, 'labels': label}"
        raise refuse_return(source, call, "a mapping of column names to tensors", sample, hint)
    for name, value in sample.items():
        if not isinstance(name, str) or not isinstance(value, (Tensor, int, float, bool)):
            raise refuse_return(
                source,
                f"column {name!r} of {call}",
                "a tensor or a number",
                value,
                "turn it into a tensor in the dataset: torch.tensor(...)",
            )
    if lacking := [name for name in splits.inputs if name not in sample]:
        raise refuse_return(
            source,
            call,
            f"the columns that the network is called with, {', '.join(splits.inputs)}",
            dict(sample),
            f"{lacking[0]!r} is not among {', '.join(map(repr, sample))}: name the columns in Splits(inputs=(...))",
        )


def _check_batch(source: Source, splits: Splits) -> None:
    """Collate the first samples of a plugin's source, which must make a mapping of tensors.

    Raises:
        PluginError: Its ``collate`` returned something else.
    """
    samples: Any = splits.train
    count = min(2, len(samples))
    if not count or is_ours(splits.collate):
        return
    batch: Any = splits.collate([samples[position] for position in range(count)])
    if not isinstance(batch, Mapping) or not all(isinstance(value, torch.Tensor) for value in batch.values()):
        wrong = batch if not isinstance(batch, Mapping) else next(v for v in batch.values() if not torch.is_tensor(v))
        raise refuse_return(
            source,
            f"collate of {type(source).__name__}",
            f"a mapping of column names to tensors (batch, …), here of {count} samples",
            wrong,
            f"it holds {described(wrong)}",
        )
