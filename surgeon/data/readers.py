"""Read each kind of source into rows: folders of pictures, CSV, JSON and Parquet files, saved datasets, the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from surgeon.data.class_names import listed
from surgeon.data.coco import read_coco
from surgeon.data.conll import conll_rows
from surgeon.data.csv_files import csv_cells, csv_header
from surgeon.data.folders import check_apart, read_folder
from surgeon.data.mask_folders import read_pairs
from surgeon.errors import SurgeonError, TrainingError, counted, suggest

TableSource: TypeAlias = Any
"""A source of :mod:`surgeon.data.sources`: images, table, saved or hub."""
PARTS = ("train", "validation", "test")
READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@dataclass
class Part:
    """The rows of one part of a source.

    Attributes:
        rows: A ``datasets.Dataset``.
        numbers: ``(rows,)``: the number of each row in the source.
        ids: The name of each row of the source, by number. Default: its number.
        base: The dataset that ``rows`` are chosen from; None if they are all of it.
        positions: ``(rows,)``: the place of each row in ``base``.
    """

    rows: Any
    numbers: Any
    ids: Sequence[str] | None = None
    base: Any = None
    positions: Any = None

    @classmethod
    def of(cls, rows: Any, ids: Sequence[str] | None = None) -> Part:
        """Return a part with all rows."""
        return cls(rows, np.arange(len(rows)), ids)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, positions: Any) -> Part:
        """Select rows."""
        base, places = (self.rows, None) if self.base is None else (self.base, self.positions)
        places = positions if places is None else places[positions]
        return Part(self.rows.select(positions), self.numbers[positions], self.ids, base, places)

    def arrow(self, columns: Sequence[str]) -> Any:
        """Return columns as an Arrow table; ``datasets`` itself gathers chosen rows one at a time."""
        rows = self.rows if self.base is None else self.base
        table = rows.select_columns(list(dict.fromkeys(columns))).with_format("arrow")[:]
        return table if self.base is None else table.take(np.asarray(self.positions, np.int64))

    def names(self) -> Iterable[str]:
        """Return the names of the rows."""
        return (str(number) if self.ids is None else self.ids[number] for number in self.numbers.tolist())


@dataclass
class Read:
    """The content of a source.

    Attributes:
        parts: By name, ``train`` first.
        text: Whether the file has only text, like CSV, so that numerals are numbers.
        notes: Remarks on what was read and left out.
        rule: How the parts were made, if the data define them; None if there is only ``train``.
        folder: The folder that paths in cells are relative to.
        places: The location of each part, for messages.
        classes: The categories that a file of boxes lists; empty for other sources.
    """

    parts: dict[str, Part]
    text: bool = False
    notes: list[str] = field(default_factory=list)
    rule: str | None = None
    folder: Path = Path()
    places: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def read(source: TableSource) -> Read:
    """Read a source with the reader of its kind.

    Raises:
        TrainingError: The source does not exist or cannot be read.
    """
    import datasets

    datasets.disable_progress_bars()
    readers: Mapping[str, Callable[[TableSource], Read]] = {
        "images": _images,
        "masks": _masks,
        "coco": _coco,
        "table": _tables,
        "conll": _tables,
        "saved": _saved,
        "hub": _hub,
    }
    try:
        data = readers[source.kind](source)
    except SurgeonError:
        raise
    except Exception as error:  # datasets and pyarrow raise many kinds of exceptions
        reason, hint = _reason(error)
        if source.kind == "hub":
            hint = "check the connection, HF_HUB_OFFLINE, and whether the dataset needs a token"
        raise TrainingError(f"{called(source)} cannot be read: {reason}", where="train.data", hint=hint) from error
    for name, part in data.parts.items():
        data.places.setdefault(name, called(source))
        if not len(part):
            rows = f"rows for {name}" if len(data.parts) > 1 else "rows"
            raise TrainingError(f"{called(source)} has no {rows}", where="train.data")
    return data


def _reason(error: BaseException) -> tuple[str, str | None]:
    """Return the first cause of an error in a line, and a hint."""
    while error.__cause__ is not None:  # datasets says no more than that it failed
        error = error.__cause__
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} is not UTF-8", "rename the file"
    if "BatchSize must be greater than 0" in str(error):
        return "it has no rows", None
    return (str(error).strip() or type(error).__name__).splitlines()[0], None


def called(source: TableSource) -> str:
    """Return the name of a source for messages."""
    return str(source.name if source.kind == "hub" else source.path)


def columns_of(source: TableSource) -> list[str]:
    """Return the columns in a source's settings, each once."""
    if source.kind == "images":
        return ["image", "label"]
    several = [*source.numbers.values(), *(c if isinstance(c, list) else [c] for c in source.targets.values())]
    boxes = getattr(source, "boxes", ())
    single = filter(None, (source.image, *boxes, source.mask, *text_columns(source), source.audio, source.group))
    return list(dict.fromkeys([*single, *(column for some in several for column in some)]))


def text_columns(source: TableSource) -> list[str]:
    """Return the column of texts, or the two columns of pairs."""
    if source.kind == "images" or not source.text:
        return []
    return [source.text] if isinstance(source.text, str) else list(source.text)


def target_columns(source: TableSource) -> dict[str, str | list[str]]:
    """Return the labels by their names in a batch."""
    return {"labels": "label"} if source.kind == "images" else dict(source.targets)


def check_columns(source: TableSource, names: Sequence[str], where: str, hint: str | None = None) -> None:
    """Refuse a source without a column that its settings name.

    Raises:
        TrainingError: A column is missing.
    """
    for column in columns_of(source):
        if column not in names:
            raise TrainingError(
                f"{where} has no column {column!r} (available: {listed(names)})",
                where="train.data",
                hint=hint or suggest(column, names),
            )


def _images(source: TableSource) -> Read:
    import datasets

    data = Read({}, folder=existing_path(source.path))
    folders = {"train": read_folder(data.folder)}
    held_out = {name: path for name, path in _paths(source).items() if name != "train"}
    for name, path in held_out.items():
        if name in folders["train"].parts:
            raise TrainingError(
                f"{name} samples are given twice: by {name}_path, and by a folder in {source.path}",
                where=f"train.data.{name}_path",
                hint="leave one of them out",
            )
        folders[name] = read_folder(existing_path(path))
    for name, folder in folders.items():
        data.notes += folder.notes()
        parts = folder.parts if name == "train" else {name: _only(folder.parts, name, folder.root)}
        if "train" not in parts and name == "train":
            raise TrainingError(f"{source.path} has {' and '.join(parts)} folders, but none for train")
        for part, rows in parts.items():
            paths = [str((folder.root / path).absolute()) for path, _ in rows]
            table = datasets.Dataset.from_dict({"image": paths, "label": [label for _, label in rows]})
            data.parts[part] = Part.of(table, [path for path, _ in rows])
            data.places[part] = str(folder.root)
    data.notes += check_apart({name: part.rows["image"][:] for name, part in data.parts.items()})
    if len(data.parts) > 1:
        data.rule = "by folder"
    return data


def _masks(source: TableSource) -> Read:
    import datasets

    data = Read({}, folder=existing_path(source.path))
    for name, path in _paths(source).items():
        folders = read_pairs(existing_path(path), source.images, source.masks)
        if name == "train" and "train" not in folders:
            raise TrainingError(f"{path} has {' and '.join(folders)} folders, but none for train")
        for part, pairs in (folders if name == "train" else {name: _only(folders, name, Path(path))}).items():
            if part in data.parts:
                raise TrainingError(
                    f"{part} samples are named twice: by {part}_path, and by a folder in {source.path}",
                    where=f"train.data.{part}_path",
                    hint="leave one of them out",
                )
            columns = {"image": [str(image) for image, _ in pairs], "mask": [str(mask) for _, mask in pairs]}
            data.parts[part] = Part.of(
                datasets.Dataset.from_dict(columns), [os.path.relpath(image, path) for image, _ in pairs]
            )
            data.places[part] = str(path)
            data.notes.append(f"{path}: {len(pairs)} pictures with masks ({part})")
    data.notes += check_apart({name: part.rows["image"][:] for name, part in data.parts.items()})
    if len(data.parts) > 1:
        data.rule = "by folder"
    return data


def _coco(source: TableSource) -> Read:
    import datasets

    data = Read({}, folder=existing_path(source.path).parent)
    listed: list[str] = []
    for name, path in _paths(source).items():
        pictures = source.images if name == "train" else getattr(source, f"{name}_images") or source.images
        folder = None if pictures is None else existing_path(pictures)
        content = read_coco(existing_path(path), folder, masks=source.masks, skip=source.on_error == "skip")
        listed += content.categories if name == "train" else []
        data.notes += content.notes
        data.parts[name] = Part.of(datasets.Dataset.from_dict(content.columns, features=_box_features()), content.names)
        data.places[name] = str(path)
    data.notes += check_apart({name: part.rows["image"][:] for name, part in data.parts.items()})
    data.classes = tuple(listed)
    data.rule = "by file" if len(data.parts) > 1 else None
    return data


def _box_features() -> Any:
    from datasets import Features, List, Value

    text, whole = Value("string"), Value("int32")
    boxes = {"boxes": List(List(Value("float32"))), "categories": List(text), "crowd": List(Value("bool"))}
    return Features({"image": text, **boxes, "annotations": List(text), "sizes": List(whole), "segments": List(text)})


def _only(parts: Mapping[str, Any], name: str, root: Path) -> Any:
    """Return the rows of a test folder: all of it, or its split of that name."""
    if name in parts:
        return parts[name]
    if list(parts) == ["train"]:
        return parts["train"]
    raise TrainingError(f"{root} has {' and '.join(parts)} folders, but none for {name}", where="train.data")


def _tables(source: TableSource) -> Read:
    data = Read({}, folder=Path(source.path).parent)
    for name, path in _paths(source).items():
        file = existing_path(path)
        data.places[name] = str(file)
        if source.kind == "conll":
            data.parts[name] = Part.of(conll_rows(source, file, data.notes))
            continue
        if file.suffix.lower() not in READERS:
            raise TrainingError(f"{file} is not a supported table", hint=f"supported: {', '.join(READERS)}")
        kind = READERS[file.suffix.lower()]
        rows = _csv(source, file) if kind == "csv" else _through_datasets(kind, file)
        check_columns(source, rows.column_names, str(file))
        data.text = kind == "csv"
        data.parts[name] = Part.of(rows)
        data.notes.append(f"{file}: {counted(len(rows), 'row')}")
    if len(data.parts) > 1:
        data.rule = "by file"
    return data


def _through_datasets(kind: str, file: Path) -> Any:
    import datasets

    # datasets keeps what it read, and looks at the date of a file only: archives give all versions of a file one date
    state = file.stat()
    name = f"{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # our error says what it would print
    try:
        return datasets.load_dataset(kind, name=name, data_files=str(file), split="train")
    finally:
        datasets.logging.set_verbosity(level)


def _csv(source: TableSource, file: Path) -> Any:
    """Read a CSV file; cells of labels and texts stay strings."""
    import datasets

    separator = source.separator or ("\t" if file.suffix.lower() == ".tsv" else ",")
    names, hint = csv_header(file, separator)
    check_columns(source, names, str(file), hint)
    if repeated := {name for name in names if names.count(name) > 1} & set(columns_of(source)):
        raise TrainingError(f"{file} has the column {min(repeated)!r} twice", where="train.data.path")
    numeric = {column for columns in source.numbers.values() for column in columns} - set(source.categories)
    return datasets.Dataset(csv_cells(file, separator, columns_of(source), numeric))


def _saved(source: TableSource) -> Read:
    import datasets

    dataset = datasets.load_from_disk(str(existing_path(source.path)))
    splits = _splits(source)
    if not isinstance(dataset, datasets.DatasetDict):
        if missing := [split for name, split in splits.items() if name != "train"]:
            raise TrainingError(f"{source.path} has no splits, so it has no {missing[0]!r}")
        return _of_parts(source, {"train": dataset})
    for split in splits.values():
        if split not in dataset:
            raise TrainingError(
                f"{source.path} has no split {split!r} (available: {', '.join(dataset)})", hint=suggest(split, dataset)
            )
    return _of_parts(source, {name: dataset[split] for name, split in splits.items()})


def _hub(source: TableSource) -> Read:
    import datasets

    return _of_parts(
        source,
        {
            name: datasets.load_dataset(source.name, source.config, split=split, revision=source.revision)
            for name, split in _splits(source).items()
        },
    )


def _of_parts(source: TableSource, parts: Mapping[str, Any]) -> Read:
    data = Read({name: Part.of(rows) for name, rows in parts.items()})
    for rows in parts.values():
        check_columns(source, rows.column_names, called(source))
    data.notes.append(f"{called(source)}: {', '.join(f'{len(rows)} rows ({name})' for name, rows in parts.items())}")
    if len(parts) > 1:
        data.rule = f"splits {', '.join(_splits(source).values())}"
    return data


def _paths(source: TableSource) -> dict[str, str]:
    paths = {"train": source.path, "validation": source.validation_path, "test": source.test_path}
    return {name: path for name, path in paths.items() if path}


def _splits(source: TableSource) -> dict[str, str]:
    splits = {"train": source.split, "validation": source.validation_split, "test": source.test_split}
    return {name: split for name, split in splits.items() if split}


def existing_path(path: str) -> Path:
    """Return ``path``, which must exist.

    Raises:
        TrainingError: The path does not exist.
    """
    if not Path(path).exists():
        raise TrainingError(
            f"{path} does not exist",
            where="train.data",
            hint=f"also looked in {os.getcwd()}; set its path with --set train.data.path=…",
        )
    return Path(path)
