"""Combine sources: number classes and domains over all of them, hide labels, hold out samples."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from surgeon.data.checked_splits import load_checked
from surgeon.data.class_names import differing
from surgeon.data.corpus import load_corpus
from surgeon.data.labels import IGNORED
from surgeon.data.network import ANY, Network
from surgeon.data.picture_sources import Split
from surgeon.data.row_splits import complement, digest, hold_out
from surgeon.data.rows import Chosen, groups_of, label_values
from surgeon.data.sources import Corpus
from surgeon.errors import TrainingError
from surgeon.interfaces.data import Source
from surgeon.interfaces.splits import Splits

DOMAIN = "domain"
"""The column with the domain of each sample."""


def load_source(source: Source, seed: int = 0, network: Network = ANY) -> Splits:
    """Return the splits of one source; see :func:`load_sources`."""
    return load_sources([source], seed, network)[0]


def load_sources(
    sources: Sequence[Source], seed: int, network: Network = ANY, trained: Sequence[bool] | None = None
) -> list[Splits]:
    """Return the splits of each source, with named classes numbered over all sources by the head's names.

    Args:
        sources: The sources in the recipe.
        seed: The seed for drawing samples and variations.
        network: What the data must fit.
        trained: Whether each source's labels are used in training. Default: all are.

    Raises:
        TrainingError: A source cannot be read, or does not fit the network or the others.
    """
    choices = list(trained) if trained is not None else [True] * len(sources)
    tables = [
        (source, is_trained)
        for source, is_trained in zip(sources, choices, strict=True)
        if type(source).load is Split.load
    ]
    numbered: dict[int, Splits] = {}
    if tables:
        from surgeon.data.tables import load_tables

        loaded = load_tables([source for source, _ in tables], seed, network, [is_trained for _, is_trained in tables])
        numbered = {id(source): splits for (source, _), splits in zip(tables, loaded, strict=True)}
    splits = []
    for source in sources:
        source_splits = numbered.get(id(source)) or _loaded(source, seed, network)
        splits.append(source_splits if id(source) in numbered else by_names_of(network, source_splits))
    return splits


def _loaded(source: Source, seed: int, network: Network) -> Splits:
    return load_corpus(source, seed, network) if isinstance(source, Corpus) else load_checked(source, seed)


@dataclass
class Member:
    """One of several sources."""

    samples: Dataset[Any]
    domain: int | None
    hidden: bool
    inputs: tuple[str, ...]
    missing: Mapping[str, Tensor]
    """The missing value of each label."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = dict(self.samples[index])
        labels = {} if self.hidden else {k: v for k, v in sample.items() if k not in self.inputs}
        # a hidden label per word has the length of its text
        missing = {
            name: value.reshape(-1)[:1].expand(sample[name].shape) if value.ndim and name in sample else value
            for name, value in self.missing.items()
        }
        full = {**{name: sample[name] for name in self.inputs}, **missing, **labels}
        if self.domain is not None:
            full[DOMAIN] = torch.tensor(self.domain)
        return full

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column; None if the source cannot list them."""
        size = len(self.samples)  # type: ignore[arg-type]
        if name == DOMAIN and self.domain is not None:
            return torch.full((size,), self.domain)
        values = None if self.hidden else label_values(self.samples, name)
        if values is None and name in self.missing and (self.hidden or name not in self.samples[0]):
            return self.missing[name].expand(size, *self.missing[name].shape)
        return values


class CombinedDataset(Dataset[dict[str, Tensor]]):
    """Concatenate the samples of several sources, with the same columns."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.ends = list(accumulate(len(member.samples) for member in members))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        member = bisect_right(self.ends, index)
        return self.members[member][index - (self.ends[member - 1] if member else 0)]

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column; None if a source cannot list them."""
        columns = [member.label_values(name) for member in self.members]
        present = [column for column in columns if column is not None]
        return torch.cat(present) if len(present) == len(columns) else None

    @property
    def groups(self) -> list[Any] | None:
        """The group of each sample, None for those of a source without groups; None if no source has any."""
        by_member = [(member, groups_of(member.samples)) for member in self.members]
        if all(groups is None for _, groups in by_member):
            return None
        return [group for member, groups in by_member for group in groups or [None] * len(member.samples)]  # type: ignore[arg-type]

    def unvaried(self) -> CombinedDataset:
        """Return the same samples without augmentation."""
        return CombinedDataset([replace(member, samples=unvaried(member.samples)) for member in self.members])

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        for member in self.members:
            if hasattr(member.samples, "set_epoch"):
                member.samples.set_epoch(epoch)


def combined(
    train: Sequence[Source], parts: Sequence[Splits], test: Sequence[Source], test_parts: Sequence[Splits]
) -> Splits:
    """Combine the training samples of ``train``, and the test samples of ``test``.

    Args:
        train: The sources to train on.
        parts: Their splits.
        test: The sources to test on.
        test_parts: Their splits.

    Raises:
        TrainingError: A test source has a domain without a training source.
    """
    inputs = parts[0].inputs
    missing: dict[str, Tensor] = {}
    for part in [*parts, *test_parts]:
        for name, value in part.train[0].items():
            if name not in inputs:
                fill = torch.nan if value.is_floating_point() else IGNORED
                missing.setdefault(name, torch.full_like(value, fill))
    domains = tuple(dict.fromkeys(source.domain for source in train if source.domain is not None))
    if DOMAIN in missing and domains:
        raise TrainingError("the column name 'domain' is reserved when sources have domains", where="train.data")
    unknown = [source.domain for source in test if source.domain is not None and source.domain not in domains]
    if unknown:
        raise TrainingError(f"the domain {unknown[0]!r} in evaluate has no training source")

    def concatenated(sources: Sequence[Source], datasets: Sequence[Any], *, hide: bool) -> CombinedDataset | None:
        members = [
            Member(
                samples,
                domains.index(source.domain) if source.domain is not None else None,
                hide and source.labels == "hidden",
                inputs,
                missing,
            )
            for source, samples in zip(sources, datasets, strict=True)
            if samples is not None
        ]
        return CombinedDataset(members) if members else None

    classes = {name: count for part in [*test_parts, *parts] for name, count in part.classes.items()}
    if domains:
        classes[DOMAIN] = len(domains)
    trained = concatenated(train, [part.train for part in parts], hide=True)
    tested = concatenated(test, [part.test for part in test_parts], hide=False)
    assert trained is not None  # there is at least one source
    assert tested is not None
    return Splits(
        trained,
        tested,
        inputs,
        classes,
        domains,
        parts[0].collate,
        preprocessing=parts[0].preprocessing,
        validation=concatenated(train, [part.validation for part in parts], hide=True),
        names={name: names for part in [*test_parts, *parts] for name, names in part.names.items()},
        notes=tuple(dict.fromkeys(note for part in [*parts, *test_parts] for note in part.notes)),
        split={"sources": [dict(part.split) for part in {id(part): part for part in [*parts, *test_parts]}.values()]},
    )


class Renumbered(Dataset[dict[str, Tensor]]):
    """Renumber the classes of a source's samples by the head's names."""

    def __init__(self, samples: Any, tables: Mapping[str, Tensor]) -> None:
        self.samples = samples
        self.tables = dict(tables)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = dict(self.samples[index])
        return {name: self._mapped(name, value) for name, value in sample.items()}

    def _mapped(self, name: str, values: Tensor) -> Tensor:
        if name not in self.tables:
            return values
        return torch.where(values == IGNORED, IGNORED, self.tables[name][values.clamp(min=0)])

    @property
    def groups(self) -> Sequence[Any] | None:
        """The group of each sample; None if the source has no groups."""
        return groups_of(self.samples)

    def unvaried(self) -> Renumbered:
        """Return the same samples without random variations."""
        return Renumbered(unvaried(self.samples), self.tables)

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on."""
        if hasattr(self.samples, "set_epoch"):
            self.samples.set_epoch(epoch)

    def label_values(self, name: str) -> Tensor | None:
        """Return all labels of a column; None if the source cannot list them."""
        values = label_values(self.samples, name)
        return None if values is None else self._mapped(name, values)


def by_names_of(network: Network, splits: Splits) -> Splits:
    """Renumber the classes that a source has names for by the names of the head.

    Raises:
        TrainingError: The head has other classes.
    """
    tables = {}
    names = dict(splits.names)
    for label, class_names in splits.names.items():
        expected = network.head(label).names
        if not expected or tuple(class_names) == tuple(expected):
            continue
        if set(class_names) != set(expected):
            raise differing(label, expected, class_names)
        tables[label] = torch.tensor([expected.index(name) for name in class_names])
        names[label] = tuple(expected)
    if not tables:
        return splits
    parts = {
        name: None if samples is None else Renumbered(samples, tables)
        for name, samples in (("train", splits.train), ("test", splits.test), ("validation", splits.validation))
    }
    return replace(splits, names=names, **parts)  # type: ignore[arg-type]


def with_validation(splits: Splits, fraction: float, label: str | None) -> Splits:
    """Hold out validation samples from the training samples, if the data have no validation split.

    Args:
        splits: The data.
        fraction: The share of the training samples.
        label: The column of the classes to stratify by, if the dataset has no ``strata``.

    Raises:
        TrainingError: There are too few samples, or groups, to hold one out.
    """
    if splits.validation is not None:
        return splits
    train: Any = splits.train
    size = len(train)
    strata = getattr(train, "strata", None)
    values = label_values(train, label) if label is not None and strata is None else None
    if values is not None and values.ndim == 1 and not values.is_floating_point():
        strata = values.numpy()
    held_rows = hold_out(size, fraction, strata=strata, groups=groups_of(train))
    remaining = complement(size, held_rows)
    ids = train.row_ids(held_rows) if hasattr(train, "row_ids") else held_rows.tolist()
    record = dict(splits.split)
    record["validation"] = f"{fraction:g} of the training samples" + (", by class" if strata is not None else "")
    record["held_out"] = {**record.get("held_out", {}), "validation": digest(ids)}
    note = f"validation: {len(held_rows)} of {size} training samples are held out, for choices that need them"
    return replace(
        splits,
        train=Chosen(train, remaining.tolist()),
        validation=Chosen(unvaried(train), held_rows.tolist()),
        notes=(*splits.notes, note),
        split=record,
    )


def unvaried(samples: Any) -> Any:
    """Return ``samples`` without random variations."""
    return samples.unvaried() if hasattr(samples, "unvaried") else samples
