"""Turn rows of a source into samples: check inputs, number classes, hold out parts, encode."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgeon.data.boxes import BoxedPictures
from surgeon.data.class_names import Levels, Numbering, listed, number_classes, order_columns
from surgeon.data.files import Encoder
from surgeon.data.inputs import check_inputs, make_inputs, undecoded
from surgeon.data.label_columns import LabelColumn, check_values
from surgeon.data.masks import MaskedPictures
from surgeon.data.network import ANY, CLASS_LOSS, Head, Network
from surgeon.data.numbers import Numbers, fit_together
from surgeon.data.readers import (
    PARTS,
    Part,
    Read,
    TableSource,
    called,
    check_columns,
    columns_of,
    read,
    target_columns,
    text_columns,
)
from surgeon.data.row_splits import SPLIT_SEED, complement, digest, draw, fold, hold_out
from surgeon.data.rows import Collate, Rows, unlabelled
from surgeon.data.tag_columns import TagColumn, label_tensor
from surgeon.data.target_columns import read_columns
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits


@dataclass
class OpenTable:
    """A source that was read, checked and split, but whose classes are not numbered yet.

    Attributes:
        source: The source in the recipe.
        parts: The rows of train, test and, if there is one, validation.
        labels: By part and target: its column, or its columns in the order of the head's outputs.
        encoders: Make the inputs.
        inputs: The names of the inputs.
        collate: Makes a batch.
        places: The location of each part.
        notes: Remarks on what was read and left out.
        used: The preprocessing, as plain values.
        split: How the parts were made.
        held_out: Whether the test rows were held out from the training rows.
    """

    source: TableSource
    parts: dict[str, Part]
    labels: dict[str, dict[str, LabelColumn | list[LabelColumn]]]
    encoders: list[Encoder]
    inputs: tuple[str, ...]
    collate: Collate
    places: dict[str, str]
    notes: list[str] = field(default_factory=list)
    used: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    held_out: bool = False

    @property
    def labelled(self) -> set[str]:
        """The labels that samples have."""
        masks = {encode.target for encode in self.encoders if isinstance(encode, (MaskedPictures, BoxedPictures))}
        return masks | set(self.labels["train"])

    def levels(self, target: str, *, trained: bool) -> Levels | None:
        """Return the values of a label in the parts that determine its classes; None for a vector."""
        columns = [self.labels[part][target] for part in self.parts]
        if not all(isinstance(column, LabelColumn) for column in columns):
            return None
        decide = ("train", "test") if self.held_out else ("train",)
        deciding = [c for part, c in zip(self.parts, columns, strict=True) if part in decide]
        levels = [c.levels(trained=trained) for c in deciding if isinstance(c, LabelColumn)]
        names: Sequence[str] = dict.fromkeys(name for level in levels for name in level.names)  # type: ignore[assignment]
        if levels[0].kind == "text" and not self._fixed(target):
            used = {name for c in deciding if isinstance(c, LabelColumn) for name in _used(c)}
            names = [name for name in names if name in used]
        return dataclasses.replace(levels[0], names=tuple(names))

    def _fixed(self, target: str) -> bool:
        """Return whether the dataset lists its classes, even those without rows."""
        column = target_columns(self.source)[target]
        return hasattr(self.parts["train"].rows.features[column], "names")

    def splits(self, numberings: Mapping[str, Numbering], network: Network) -> Splits:
        """Return the samples.

        Raises:
            TrainingError: A label does not fit its loss, or a test class is not in training.
        """
        parts = {}
        notes = list(self.notes)
        columns = [column for column in columns_of(self.source) if column in self._input_columns()]
        for name in self.parts:
            part = self.parts[name]
            labels = {}
            for target in self.labels[name]:
                values = self._tensor(name, target, numberings, network.head(target))
                labels[target] = values
                if missing := unlabelled(values):
                    notes.append(f"{self.places[name]}: {missing} of {len(values)} {name} rows have no {target!r}")
                notes += self._absent(name, target, values, numberings.get(target))
            parts[name] = Rows(
                part.rows.select_columns(columns),
                self.encoders,
                labels,
                numbers=part.numbers,
                where=self.places[name],
                groups=self._groups(part),
                strata=self._strata(name, network),
                ids=part.ids,
                by_word=self._by_word(name),
                whole=part.arrow,
                varied=name == "train",
            )
        names = {target: numbering.names for target, numbering in numberings.items() if numbering.names}
        classes = {target: len(listed) for target, listed in names.items() if network.head(target).loss != "bce"}
        for target, column in target_columns(self.source).items():
            if isinstance(column, list) and network.head(target).loss == "bce":
                names[target] = tuple(order_columns(target, column, network.head(target)))
        notes += [note for numbering in numberings.values() for note in numbering.notes]
        return Splits(
            parts["train"],
            parts["test"],
            self.inputs,
            classes,
            collate=self.collate,
            validation=parts.get("validation"),
            names=names,
            notes=tuple(dict.fromkeys(notes)),
            split=self.split,
            preprocessing=self.used,
        )

    def _by_word(self, part: str) -> list[str]:
        return [target for target, column in self.labels[part].items() if isinstance(column, TagColumn)]

    def _input_columns(self) -> set[str]:
        if self.source.kind == "images":
            return {"image"}
        numbers = {column for columns in self.source.numbers.values() for column in columns}
        return numbers | {
            c for c in (self.source.image, self.source.mask, *text_columns(self.source), self.source.audio) if c
        }.union(getattr(self.source, "boxes", ()))

    def _tensor(self, part: str, target: str, numberings: Mapping[str, Numbering], head: Head) -> Tensor:
        columns = self.labels[part][target]
        if isinstance(columns, LabelColumn):
            return label_tensor(target, columns, numberings[target], head)
        for column in columns:
            check_values(column, head)
        return torch.from_numpy(np.stack([column.values for column in columns], 1)).float()

    def _absent(self, part: str, target: str, values: Tensor, numbering: Numbering | None) -> list[str]:
        if numbering is None or not numbering.names or values.is_floating_point():
            return []
        present = set(np.unique(values.numpy()).tolist())
        absent = [name for number, name in enumerate(numbering.names) if number not in present]
        if not absent or len(absent) == len(numbering.names):
            return []
        return [f"{self.places[part]}: no {part} sample of {', '.join(absent)}"]

    def _groups(self, part: Part) -> list[Any] | None:
        group = getattr(self.source, "group", None)
        return None if group is None else part.rows[group][:]

    def _strata(self, part: str, network: Network) -> Any:
        if self.source.kind == "coco":
            return _rarest(self.parts[part].rows["categories"][:])
        return _strata(self.source, self.labels[part], network)


def load_tables(
    sources: Sequence[Any], seed: int, network: Network = ANY, trained: Sequence[bool] | None = None
) -> list[Splits]:
    """Return the splits of each source (images, table, saved, hub), with classes numbered over all of them.

    Args:
        sources: The sources in the recipe.
        seed: The seed for drawing samples and variations.
        network: What the data must fit.
        trained: Whether each source's labels are used in training. Default: all are.

    Raises:
        TrainingError: A source cannot be read, or does not fit the network or the others.
    """
    trained = trained if trained is not None else [True] * len(sources)
    tables = [open_table(source, seed, network) for source in sources]
    _fit_numbers(tables)
    levels: dict[str, list[Levels]] = {}
    for table, is_trained in zip(tables, trained, strict=True):
        for target in table.labels["train"]:
            if (level := table.levels(target, trained=is_trained)) is not None:
                levels.setdefault(target, []).append(level)
    encoders = [
        (encode, is_trained) for table, is_trained in zip(tables, trained, strict=True) for encode in table.encoders
    ]
    masks = [(e, t) for e, t in encoders if isinstance(e, MaskedPictures) and e.values.classes is not None]
    boxes = [(e, t) for e, t in encoders if isinstance(e, BoxedPictures)]
    every: list[tuple[MaskedPictures | BoxedPictures, bool]] = [*masks, *boxes]
    for drawn, is_trained in every:
        level = drawn.levels(network.head(drawn.target), trained=is_trained)
        levels.setdefault(drawn.target, []).append(level)
    _check_learnable(tables, trained, network)
    numberings = {target: number_classes(target, values, network.head(target)) for target, values in levels.items()}
    for drawn, _ in every:
        drawn.number(numberings[drawn.target])
    for boxed, _ in boxes:
        boxed.most = max(encoder.most for encoder, _ in boxes)
    return [
        table.splits({t: numbering for t, numbering in numberings.items() if t in table.labelled}, network)
        for table in tables
    ]


def _check_learnable(tables: Sequence[OpenTable], trained: Sequence[bool], network: Network) -> None:
    """Refuse labels that teach the network nothing: none in any training row, or one class only.

    Raises:
        TrainingError: A label that the network is trained by is such.
    """
    for target, head in network.heads.items():
        teaching = [table for table, wanted in zip(tables, trained, strict=True) if wanted and target in table.labelled]
        if not teaching or not all(target in table.labels["train"] for table in teaching):
            continue  # masks or boxes
        columns = [table.labels["train"][target] for table in teaching]
        flat = [part for column in columns for part in (column if isinstance(column, list) else [column])]
        where = ", ".join(dict.fromkeys(column.where for column in flat))
        if all(bool(column.missing.all()) for column in flat):
            raise TrainingError(f"{where}: no training row has a label {target!r}", where="train.data.targets")
        names = {name for column in flat if column.kind == "text" for name in _used(column)}
        classes = head.loss == CLASS_LOSS and not head.partial and all(column.kind == "text" for column in flat)
        if classes and len(names) == 1:
            raise TrainingError(
                f"{where}: all training rows are of one class of {target!r}: {listed(sorted(names))}",
                where="train.data.targets",
                hint="there is nothing to tell apart; add samples of other classes",
            )


def _fit_numbers(tables: Sequence[OpenTable]) -> None:
    """Standardise numeric inputs with the statistics of all sources' training rows."""
    inputs: dict[str, list[tuple[Numbers, OpenTable]]] = {}
    for table in tables:
        for encode in table.encoders:
            if isinstance(encode, Numbers):
                inputs.setdefault(encode.name, []).append((encode, table))
    for name, encoders in inputs.items():
        fit_together([(encode, table.parts["train"]) for encode, table in encoders])
        for encode, table in encoders:
            if encode.used:
                table.used.setdefault("numbers", {})[name] = encode.used


def open_table(source: TableSource, seed: int, network: Network = ANY) -> OpenTable:
    """Read a source, check all its inputs, and hold out a part of it.

    Raises:
        TrainingError: The source does not exist, cannot be read, lacks a column, has a damaged input, or has too few
            samples.
    """
    data = read(source)
    for part in data.parts.values():
        check_columns(source, part.rows.column_names, called(source))
    data.parts = {name: undecoded(source, part) for name, part in data.parts.items()}
    encoders, inputs, collate, used = make_inputs(source, data, network, seed)
    notes = data.notes + check_inputs(source, data, encoders, network, trains=True)
    labels = read_columns(source, data, network)
    table = OpenTable(source, data.parts, labels, encoders, inputs, collate, data.places, notes, used)
    _hold_out(table, data, network)
    if source.samples is not None:
        _draw(table, seed, network)
    return table


def _strata(source: TableSource, labels: Mapping[str, Any], network: Network) -> Any:
    """Return the class of each row by the first label with classes; None if there is none."""
    for target, columns in labels.items():
        head = network.head(target)
        if isinstance(columns, LabelColumn):
            if columns.kind == "text" or head.loss not in ("mse", "huber", "cosine"):
                codes = columns.strata()
                if codes is not None and len(np.unique(codes)) <= max(2, len(codes) // 2):
                    return codes
        elif all(column.kind in ("bool", "whole") for column in columns):
            rows = np.nan_to_num(np.stack([column.values for column in columns], 1), nan=-1)
            _, codes = np.unique(rows, axis=0, return_inverse=True)
            return codes.reshape(-1)
    return None


def _rarest(categories: Sequence[Sequence[str]]) -> Any:
    """Return the rarest category of each picture as a number, -1 for pictures without boxes."""
    counts = Counter(name for names in categories for name in set(names))
    order = {name: number for number, (name, _) in enumerate(counts.most_common())}
    return np.array([max((order[name] for name in names), default=-1) for names in categories])


def _hold_out(table: OpenTable, data: Read, network: Network) -> None:
    """Hold out test samples from the training samples, if the data have no test samples."""
    source, train = table.source, table.parts["train"]
    rule = data.rule
    if "test" in table.parts:
        if source.folds is not None:
            raise TrainingError("both folds and test samples are given; use one of them")
    else:
        strata, groups = table._strata("train", network), table._groups(train)
        options = {"strata": strata, "groups": groups}
        if groups is not None and any(group is None or group == "" for group in groups):
            raise TrainingError(f"{called(source)} has rows without a group in {source.group!r}", where="train.data")
        if source.folds is not None:
            held_rows = fold(len(train), source.folds.count, source.folds.index, **options)
            rule = f"fold {source.folds.index} of {source.folds.count}"
        else:
            held_rows = hold_out(len(train), source.test_fraction, **options)
            rule = f"{source.test_fraction:g} held out"
        rule += "".join([", by class" if strata is not None else "", f", by {source.group}" if groups else ""])
        _divide(table, held_rows)
        table.held_out = True
        table.places["test"] = table.places["train"]
    ordered = sorted(table.parts, key=PARTS.index)
    table.parts = {name: table.parts[name] for name in ordered}
    table.split = {
        "rule": rule,
        "seed": SPLIT_SEED,
        "held_out": {name: digest(table.parts[name].names()) for name in ordered if name != "train"},
    }


def _divide(table: OpenTable, held_rows: Any) -> None:
    train = table.parts["train"]
    remaining = complement(len(train), held_rows)
    labels = table.labels["train"]
    for name, positions in (("train", remaining), ("test", held_rows)):
        table.parts[name] = train.select(positions)
        table.labels[name] = {
            target: column.take(positions)
            if isinstance(column, LabelColumn)
            else [one.take(positions) for one in column]
            for target, column in labels.items()
        }


def _draw(table: OpenTable, seed: int, network: Network) -> None:
    count, train = table.source.samples, table.parts["train"]
    if count > len(train):
        raise TrainingError(
            f"data.samples is {count}, but {called(table.source)} has only {len(train)} training samples",
            hint="use fewer, or leave samples out for all",
        )
    chosen = draw(len(train), count, seed, strata=table._strata("train", network))
    table.parts["train"] = train.select(chosen)
    table.labels["train"] = {
        target: column.take(chosen) if isinstance(column, LabelColumn) else [one.take(chosen) for one in column]
        for target, column in table.labels["train"].items()
    }


def _used(column: LabelColumn) -> list[str]:
    return [column.names[code] for code in np.unique(column.codes) if code >= 0]
