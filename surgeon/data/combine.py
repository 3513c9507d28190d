"""Sources of data put together: classes numbered over all, domains counted, hidden labels taken out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from surgeon.data.labels import IGNORED
from surgeon.data.sources import Split
from surgeon.errors import TrainingError
from surgeon.interfaces.data import Source
from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing
from surgeon.interfaces.splits import Splits

DOMAIN = "domain"
"""The column that says which domain a sample is of."""


def load_source(source: Source, seed: int = 0, stated: Preprocessing = UNKNOWN) -> Splits:
    """The splits of one source; see :func:`load_sources`."""
    return load_sources([source], seed, stated)[0]


def load_sources(sources: Sequence[Source], seed: int, stated: Preprocessing = UNKNOWN) -> list[Splits]:
    """The splits of each source, with classes given by name numbered over all of them.

    Args:
        sources: Where samples come from.
        seed: What is drawn is drawn by it.
        stated: How the network's checkpoint has samples prepared.

    Raises:
        TrainingError: One cannot be read.
    """
    tables = [source for source in sources if type(source).load is Split.load]
    numbered: dict[int, Splits] = {}
    if tables:
        from surgeon.data.tables import load_tables

        numbered = dict(zip(map(id, tables), load_tables(tables, seed, stated), strict=True))
    splits = []
    for source in sources:
        splits.append(numbered.get(id(source)) or source.load(seed))
        if not isinstance(splits[-1], Splits):
            raise TrainingError(f"load of {type(source).__name__} returned {type(splits[-1]).__name__}, not Splits")
    return splits


@dataclass
class Member:
    """One source among several."""

    samples: Dataset[Any]
    domain: int | None
    hidden: bool
    inputs: tuple[str, ...]
    missing: Mapping[str, Tensor]
    """What each label is where it is missing."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = dict(self.samples[index])
        labels = {} if self.hidden else {k: v for k, v in sample.items() if k not in self.inputs}
        full = {**{name: sample[name] for name in self.inputs}, **self.missing, **labels}
        if self.domain is not None:
            full[DOMAIN] = torch.tensor(self.domain)
        return full


class Together(Dataset[dict[str, Tensor]]):
    """The samples of several sources, one source after the other, all with the same columns."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.ends = list(accumulate(len(member.samples) for member in members))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        which = bisect_right(self.ends, index)
        return self.members[which][index - (self.ends[which - 1] if which else 0)]

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        for member in self.members:
            if hasattr(member.samples, "set_epoch"):
                member.samples.set_epoch(epoch)


def _together(
    train: Sequence[Source], parts: Sequence[Splits], test: Sequence[Source], others: Sequence[Splits]
) -> Splits:
    inputs = parts[0].inputs
    missing: dict[str, Tensor] = {}
    for part in [*parts, *others]:
        for name, value in part.train[0].items():
            if name not in inputs:
                fill = torch.nan if value.is_floating_point() else IGNORED
                missing.setdefault(name, torch.full_like(value, fill))
    domains = tuple(dict.fromkeys(source.domain for source in train if source.domain is not None))
    if DOMAIN in missing and domains:
        raise TrainingError("a column is called 'domain', and the sources have domains", where="train.data")
    unknown = [source.domain for source in test if source.domain is not None and source.domain not in domains]
    if unknown:
        raise TrainingError(f"evaluate has the domain {unknown[0]!r}, which no source is trained on")

    def members(sources: Sequence[Source], splits: Sequence[Splits], *, trained: bool) -> list[Member]:
        return [
            Member(
                part.train if trained else part.test,
                domains.index(source.domain) if source.domain is not None else None,
                trained and source.labels == "hidden",
                inputs,
                missing,
            )
            for source, part in zip(sources, splits, strict=True)
        ]

    classes = {name: count for part in [*others, *parts] for name, count in part.classes.items()}
    if domains:
        classes[DOMAIN] = len(domains)
    return Splits(
        Together(members(train, parts, trained=True)),
        Together(members(test, others, trained=False)),
        inputs,
        classes,
        domains,
        parts[0].collate,
        parts[0].preprocessing,
    )
