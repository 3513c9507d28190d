"""Data through ``datasets``: folders of pictures, tables, saved datasets, the hub."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from surgeon.data.audio import Sound
from surgeon.data.labels import IGNORED
from surgeon.data.pictures import Picture
from surgeon.data.texts import open_texts
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing
from surgeon.interfaces.splits import Splits

TableSource: TypeAlias = Any
"""A source of :mod:`surgeon.data.sources` of the kind images, table, saved or hub."""
Encoder: TypeAlias = Callable[[Mapping[str, Any], int, bool], dict[str, Tensor]]
"""Called with a row, its number and whether it is to be varied; returns columns of the batch."""
FILES = ("images", "table")
"""The kinds of sources that lie in files of a path, beside which others may lie."""
READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
# Which samples are held out must not depend on a recipe's seed, as for the digits.
SPLIT_SEED = 20260


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of a table, each encoded when it is asked for; training rows are varied anew in every epoch."""

    def __init__(self, rows: Any, encoders: list[Encoder], *, varied: bool) -> None:
        self.rows = rows
        self.encoders = encoders
        self.varied = varied

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[index]
        return {name: value for encode in self.encoders for name, value in encode(row, index, self.varied).items()}

    def set_epoch(self, epoch: int) -> None:
        """Vary what is varied in the way of this epoch."""
        for encode in self.encoders:
            if isinstance(encode, Picture):
                encode.set_epoch(epoch)


@dataclass
class Collate:
    """Makes a batch; sequences are filled up to the longest with a value of each column's own."""

    padding: dict[str, float] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    """Columns of pictures; those of different sizes are filled up below and at the right with zeros, where ``fill``."""
    fill: bool = False

    def __call__(self, samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``samples`` as a batch."""
        filled = {name: self._filled(name, samples) for name in self.pictures}
        others = [{k: v for k, v in s.items() if k not in self.padding and k not in filled} for s in samples]
        batch = {**filled, **(default_collate(others) if others[0] else {})}
        for name, value in self.padding.items():
            columns = [sample[name] for sample in samples]
            batch[name] = torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=value)
        return dict(batch)

    def _filled(self, name: str, samples: list[dict[str, Tensor]]) -> Tensor:
        columns = [sample[name] for sample in samples]
        sizes = sorted({tuple(column.shape) for column in columns})
        if len(sizes) == 1:
            return torch.stack(columns)
        if not self.fill or len({len(size) for size in sizes}) > 1:
            raise TrainingError(
                f"the checkpoint's processor makes {name} of {sizes[0]} and of {sizes[-1]}, which make no batch",
                where="train.data.pixels",
                hint="give them one size, pixels: {size: …}, or batch_size: 1",
            )
        most = [max(size[axis] for size in sizes) for axis in range(len(sizes[0]))]
        batch = columns[0].new_zeros((len(columns), *most))
        for place, column in zip(batch, columns, strict=True):
            place[tuple(slice(side) for side in column.shape)] = column
        return batch


@dataclass
class OpenTable:
    """A source that has been opened, before its classes are numbered.

    Attributes:
        train: The rows to train on.
        test: The rows to test on.
        source: What the recipe says of it.
    """

    train: Any
    test: Any
    source: TableSource

    @property
    def targets(self) -> dict[str, str | list[str]]:
        """The labels by their names in a batch."""
        return {"labels": "label"} if self.source.kind == "images" else dict(self.source.targets)

    def class_names(self, target: str) -> set[str]:
        """The classes of a label that is told by names; empty where it is told by numbers."""
        column = self.targets[target]
        if isinstance(column, list):
            return set()
        feature = self.train.features[column]
        if hasattr(feature, "names"):
            return set(feature.names)
        if getattr(feature, "dtype", "") not in ("string", "large_string"):
            return set()
        return {value for rows in (self.train, self.test) for value in rows.unique(column) if value is not None}

    def datasets(
        self, names: Mapping[str, list[str]], seed: int, stated: Preprocessing = UNKNOWN
    ) -> tuple[Rows, Rows, tuple[str, ...], Collate, dict[str, Any]]:
        """The samples, the names of the inputs, and how batches are made.

        Args:
            names: The classes of labels that are told by names, in order, over all sources.
            seed: What training samples are varied by.
            stated: How the checkpoint has samples prepared.
        """
        encoders, inputs, collate, used = self._inputs(seed, stated)
        for target, column in self.targets.items():
            if isinstance(column, list):
                encoders.append(_Vector(target, column))
            else:
                values = (self.train.with_format(None)[column], self.test.with_format(None)[column])
                feature = self.train.features[column]
                encoders.append(_label(target, column, feature, [v for some in values for v in some], names))
        train, test = Rows(self.train, encoders, varied=True), Rows(self.test, encoders, varied=False)
        return train, test, inputs, collate, used

    def _inputs(
        self, seed: int, stated: Preprocessing
    ) -> tuple[list[Encoder], tuple[str, ...], Collate, dict[str, Any]]:
        source, collate = self.source, Collate()
        images = source.kind == "images"
        column = "image" if images else source.image
        encoders: list[Encoder] = []
        inputs: list[str] = []
        used: dict[str, Any] = {}
        folder = Path(source.path if images else Path(source.path).parent) if source.kind in FILES else Path()
        if column is not None:
            picture = Picture(column, source.pixels, folder, seed, stated)
            encoders.append(picture)
            inputs += picture.names
            collate.pictures, collate.fill = tuple(picture.names), picture.transform.fills
            used["pictures"] = picture.used
        if images:
            return encoders, tuple(inputs), collate, used
        if source.text is not None:
            texts = open_texts(source.text, source.tokenizer, source.max_length, stated)
            encoders.append(texts)
            collate.padding |= texts.padding
            inputs += texts.names
            used["texts"] = {"max_length": texts.max_length}
        if source.audio is not None:
            sound = Sound(source.audio, source.waves, folder, stated)
            encoders.append(sound)
            inputs += sound.names
            collate.padding |= sound.padding
            used["sounds"] = sound.used
        for name, columns in source.numbers.items():
            encoders.append(_Numbers(name, columns))
            inputs.append(name)
        return encoders, tuple(inputs), collate, used


def load_tables(sources: Sequence[Any], seed: int, stated: Preprocessing = UNKNOWN) -> list[Splits]:
    """The splits of each source (images, table, saved, hub), with classes given by name numbered over all of them.

    Raises:
        TrainingError: One cannot be read.
    """
    opened = [open_table(source, seed) for source in sources]
    names: dict[str, set[str]] = {}
    for table in opened:
        for target in table.targets:
            if found := table.class_names(target):
                names[target] = names.get(target, set()) | found
    ordered = {target: sorted(found) for target, found in names.items()}
    splits = []
    for table in opened:
        train, test, inputs, collate, used = table.datasets(ordered, seed, stated)
        classes = {target: len(ordered[target]) for target in table.targets if target in ordered}
        splits.append(Splits(train, test, inputs, classes, collate=collate, preprocessing=used))
    return splits


def open_table(source: TableSource, seed: int) -> OpenTable:
    """Open a source and hold a part of it out.

    Raises:
        TrainingError: It is not there, cannot be read, lacks a column, or has fewer samples than asked for.
    """
    train, test = _read(source)
    if test is None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
        held = min(len(train) - 1, max(1, round(len(train) * source.test_fraction)))
        if len(train) < 2:
            raise TrainingError(f"{_called(source)} has {len(train)} samples, of which none can be held out")
        train, test = train.select(sorted(order[held:])), train.select(sorted(order[:held]))
    if source.samples is not None:
        if source.samples > len(train):
            raise TrainingError(
                f"data.samples asks for {source.samples}, and {_called(source)} has {len(train)} not held out",
                hint="ask for less, or leave samples out for all",
            )
        draw = torch.Generator().manual_seed(seed)
        train = train.select(sorted(torch.randperm(len(train), generator=draw)[: source.samples].tolist()))
    for column in _columns(source):
        if column not in train.column_names:
            raise TrainingError(
                f"{_called(source)} has no column {column!r} (there are: {', '.join(train.column_names)})",
                where="train.data",
                hint=suggest(column, train.column_names),
            )
    sounds = getattr(source, "audio", None)
    if sounds is not None and hasattr(train.features[sounds], "decode"):  # of datasets' own reading, which needs more
        undecoded = dataclasses.replace(train.features[sounds], decode=False)
        train, test = (rows.cast_column(sounds, undecoded) for rows in (train, test))
    return OpenTable(train, test, source)


def _read(source: TableSource) -> tuple[Any, Any]:
    """The rows to train on and, where they are named, those to test on."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if source.kind == "images":
            folders = [_there(source.path)] + ([_there(source.test_path)] if source.test_path else [])
            found = [datasets.load_dataset("imagefolder", data_dir=str(f), split="train") for f in folders]
            for rows, folder in zip(found, folders, strict=True):
                if "label" not in rows.column_names:
                    raise TrainingError(f"{folder} holds no folder for each class", hint="cats/1.jpg, dogs/7.png, …")
            return found[0], found[1] if len(found) > 1 else None
        if source.kind == "table":
            files = [_there(source.path)] + ([_there(source.test_path)] if source.test_path else [])
            found = [_table(datasets, file) for file in files]
            return found[0], found[1] if len(found) > 1 else None
        if source.kind == "saved":
            whole = datasets.load_from_disk(str(_there(source.path)))
            if not isinstance(whole, datasets.DatasetDict):
                if source.test_split:
                    raise TrainingError(f"{source.path} has no splits, so that there is no {source.test_split!r}")
                return whole, None
            for split in filter(None, (source.split, source.test_split)):
                if split not in whole:
                    raise TrainingError(
                        f"{source.path} has no split {split!r} (there are: {', '.join(whole)})",
                        hint=suggest(split, whole),
                    )
            return whole[source.split], whole[source.test_split] if source.test_split else None
        splits = [split for split in (source.split, source.test_split) if split]
        found = [
            datasets.load_dataset(source.name, source.config, split=split, revision=source.revision) for split in splits
        ]
        return found[0], found[1] if len(found) > 1 else None
    except TrainingError:
        raise
    except Exception as error:  # what datasets raises differs by format, and by what is wrong with the network
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = None
        if source.kind == "hub":
            hint = "is the hub within reach (HF_HUB_OFFLINE is not set), and does the dataset need a token?"
        raise TrainingError(f"{_called(source)} cannot be read: {said}", where="train.data", hint=hint) from error


def _table(datasets: Any, file: Path) -> Any:
    if file.suffix not in READERS:
        raise TrainingError(f"{file} is no table that can be read", hint=f"there are: {', '.join(READERS)}")
    options = {"sep": "\t"} if file.suffix == ".tsv" else {}
    return datasets.load_dataset(READERS[file.suffix], data_files=str(file), split="train", **options)


def _there(path: str) -> Path:
    if not Path(path).exists():
        raise TrainingError(
            f"{path} does not exist",
            where="train.data",
            hint=f"looked for in {os.getcwd()} too; --set train.data.path=… says where it lies now",
        )
    return Path(path)


def _called(source: TableSource) -> str:
    return str(source.name if source.kind == "hub" else source.path)


def _columns(source: TableSource) -> Iterable[str]:
    """The columns of the table that are used."""
    if source.kind == "images":
        return ("image", "label")
    several = [*source.numbers.values(), *(c if isinstance(c, list) else [c] for c in source.targets.values())]
    return [*filter(None, (source.image, source.text, source.audio)), *(column for some in several for column in some)]


@dataclass
class _Numbers:
    name: str
    columns: list[str]

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        values = [row[column] for column in self.columns]
        if any(value is None or value != value for value in values):
            raise TrainingError(f"row {index} has an empty field in {', '.join(self.columns)}, which is an input")
        return {self.name: torch.tensor(values, dtype=torch.float32)}


@dataclass
class _Vector:
    target: str
    columns: list[str]

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        values = [torch.nan if row[column] is None else float(row[column]) for column in self.columns]
        return {self.target: torch.tensor(values, dtype=torch.float32)}


@dataclass
class _Class:
    target: str
    column: str
    numbers: dict[Any, int]
    """By what stands in the table; what is not in it is missing."""

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        return {self.target: torch.tensor(self.numbers.get(row[self.column], IGNORED))}


@dataclass
class _Number:
    target: str
    column: str
    whole: bool
    shape: tuple[int, ...]

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        value = row[self.column]
        missing = value is None or (isinstance(value, float) and value != value)
        if self.whole:
            return {self.target: torch.tensor(IGNORED if missing else int(value))}
        if missing:
            return {self.target: torch.full(self.shape, torch.nan)}
        return {self.target: torch.as_tensor(value, dtype=torch.float32)}


def _label(target: str, column: str, feature: Any, values: list[Any], names: Mapping[str, list[str]]) -> Encoder:
    """How a column becomes a label: classes by name, whole numbers as they stand, other numbers as values."""
    if target in names:
        own = list(feature.names) if hasattr(feature, "names") else [v for v in set(values) if v is not None]
        order = {name: number for number, name in enumerate(names[target])}
        keys = range(len(own)) if hasattr(feature, "names") else own
        return _Class(target, column, {key: order[name] for key, name in zip(keys, own, strict=True)})
    known = [v for v in values if v is not None and v == v]
    if any(isinstance(v, str) for v in known):
        raise TrainingError(f"the column {column!r} holds texts in one source and numbers in another")
    if known and isinstance(known[0], list):
        return _Number(target, column, False, tuple(torch.as_tensor(known[0]).shape))
    whole = all(float(v).is_integer() and v >= 0 for v in known)
    return _Number(target, column, whole, ())
