"""Read each kind of source into rows: folders of pictures, CSV, JSON and Parquet files, saved datasets, the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from surgeon.data.folders import read_folder
from surgeon.errors import SurgeonError, TrainingError, suggest

TableSource: TypeAlias = Any
"""A source of :mod:`surgeon.data.sources` of the kind images, table, saved or hub."""
PARTS = ("train", "validation", "test")
READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
SEPARATORS = (";", "\t", "|")


@dataclass
class Part:
    """The rows of one part of a source.

    Attributes:
        rows: A ``datasets.Dataset``.
        numbers: ``(rows,)``: the number of each row in what was read.
        ids: What each row of what was read is called, by its number; its number itself if left out.
    """

    rows: Any
    numbers: Any
    ids: Sequence[str] | None = None

    @classmethod
    def of(cls, rows: Any, ids: Sequence[str] | None = None) -> Part:
        """All rows."""
        return cls(rows, np.arange(len(rows)), ids)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, positions: Any) -> Part:
        """Some of the rows."""
        return Part(self.rows.select(positions), self.numbers[positions], self.ids)

    def names(self) -> Iterable[str]:
        """What the rows are called."""
        return (str(number) if self.ids is None else self.ids[number] for number in self.numbers.tolist())


@dataclass
class Read:
    """What was read of a source.

    Attributes:
        parts: By name, ``train`` first.
        text: Whether the file holds only text, as a CSV does, so that numerals are numbers.
        notes: What was read and what was left out.
        rule: How the parts came about, where the data say; None where there is only ``train``.
        folder: Where paths in cells begin.
        places: Where each part was read, for messages.
    """

    parts: dict[str, Part]
    text: bool = False
    notes: list[str] = field(default_factory=list)
    rule: str | None = None
    folder: Path = Path()
    places: dict[str, str] = field(default_factory=dict)


def read(source: TableSource) -> Read:
    """Read a source, by the reader of its kind.

    Raises:
        TrainingError: It is not there, or cannot be read.
    """
    import datasets

    datasets.disable_progress_bars()
    readers: Mapping[str, Callable[[TableSource], Read]] = {
        "images": _images,
        "table": _tables,
        "saved": _saved,
        "hub": _hub,
    }
    try:
        made = readers[source.kind](source)
    except SurgeonError:
        raise
    except Exception as error:  # what datasets and pyarrow raise differs by format, and by what is wrong
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = None
        if source.kind == "hub":
            hint = "is the hub within reach (HF_HUB_OFFLINE is not set), and does the dataset need a token?"
        raise TrainingError(f"{called(source)} cannot be read: {said}", where="train.data", hint=hint) from error
    for name, part in made.parts.items():
        made.places.setdefault(name, called(source))
        if not len(part):
            raise TrainingError(f"{called(source)} has no rows for {name}", where="train.data")
    return made


def called(source: TableSource) -> str:
    """What a source is called in messages."""
    return str(source.name if source.kind == "hub" else source.path)


def columns_of(source: TableSource) -> list[str]:
    """The columns that a source's settings name, each once."""
    if source.kind == "images":
        return ["image", "label"]
    several = [*source.numbers.values(), *(c if isinstance(c, list) else [c] for c in source.targets.values())]
    single = filter(None, (source.image, *text_columns(source), source.audio, source.group))
    return list(dict.fromkeys([*single, *(column for some in several for column in some)]))


def text_columns(source: TableSource) -> list[str]:
    """The column of texts, or the two of pairs."""
    if source.kind == "images" or not source.text:
        return []
    return [source.text] if isinstance(source.text, str) else list(source.text)


def target_columns(source: TableSource) -> dict[str, str | list[str]]:
    """The labels by their names in a batch."""
    return {"labels": "label"} if source.kind == "images" else dict(source.targets)


def check_columns(source: TableSource, names: Sequence[str], where: str, hint: str | None = None) -> None:
    """Refuse a source that lacks a column that its settings name.

    Raises:
        TrainingError: It does.
    """
    for column in columns_of(source):
        if column not in names:
            raise TrainingError(
                f"{where} has no column {column!r} (there are: {', '.join(names)})",
                where="train.data",
                hint=hint or suggest(column, names),
            )


def _images(source: TableSource) -> Read:
    import datasets

    made = Read({}, folder=there(source.path))
    folders = {"train": read_folder(made.folder)}
    given = {name: path for name, path in _paths(source).items() if name != "train"}
    for name, path in given.items():
        if name in folders["train"].parts:
            raise TrainingError(
                f"{name} samples are named twice: by {name}_path, and by a folder in {source.path}",
                where=f"train.data.{name}_path",
                hint="leave one of them out",
            )
        folders[name] = read_folder(there(path))
    for name, folder in folders.items():
        made.notes += folder.notes()
        parts = folder.parts if name == "train" else {name: _only(folder.parts, name, folder.root)}
        if "train" not in parts and name == "train":
            raise TrainingError(f"{source.path} has {' and '.join(parts)} folders, but none for train")
        for part, rows in parts.items():
            paths = [str((folder.root / path).absolute()) for path, _ in rows]
            table = datasets.Dataset.from_dict({"image": paths, "label": [label for _, label in rows]})
            made.parts[part] = Part.of(table, [path for path, _ in rows])
            made.places[part] = str(folder.root)
    _check_apart(made.parts)
    if len(made.parts) > 1:
        made.rule = "by folder"
    return made


def _check_apart(parts: Mapping[str, Part]) -> None:
    """Refuse a picture, by its file, in two parts."""
    seen: dict[str, str] = {}
    for name, part in parts.items():
        for path in part.rows["image"][:]:
            other = seen.setdefault(os.path.realpath(path), name)
            if other != name:
                raise TrainingError(
                    f"{path} is a {other} sample and a {name} sample: what is held out would be trained on",
                    where="train.data",
                    hint="keep the folders apart",
                )


def _only(parts: Mapping[str, Any], name: str, root: Path) -> Any:
    """The rows of a folder to test on: all of it, or its split of that name."""
    if name in parts:
        return parts[name]
    if list(parts) == ["train"]:
        return parts["train"]
    raise TrainingError(f"{root} has {' and '.join(parts)} folders, but none for {name}", where="train.data")


def _tables(source: TableSource) -> Read:
    made = Read({}, folder=Path(source.path).parent)
    for name, path in _paths(source).items():
        file = there(path)
        if file.suffix.lower() not in READERS:
            raise TrainingError(f"{file} is no table that can be read", hint=f"there are: {', '.join(READERS)}")
        kind = READERS[file.suffix.lower()]
        rows = _csv(source, file) if kind == "csv" else _through_datasets(kind, file)
        check_columns(source, rows.column_names, str(file))
        made.text = kind == "csv"
        made.parts[name] = Part.of(rows)
        made.places[name] = str(file)
        made.notes.append(f"{file}: {len(rows)} rows")
    if len(made.parts) > 1:
        made.rule = "by file"
    return made


def _through_datasets(kind: str, file: Path) -> Any:
    import datasets

    return datasets.load_dataset(kind, data_files=str(file), split="train")


def _csv(source: TableSource, file: Path) -> Any:
    """Read a CSV file; cells of labels and texts as they stand, so that "NA" and "01" stay what they are."""
    import datasets
    from pyarrow import ArrowInvalid, csv, string

    separator = source.separator or ("\t" if file.suffix.lower() == ".tsv" else ",")
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    with file.open("rb") as opened:
        head = opened.readline().decode("utf-8-sig", "replace").strip("\r\n")
    if not head:
        raise TrainingError(f"{file} is empty", where="train.data.path")
    names = csv.open_csv(file, parse_options=parse).schema.names
    other = next((mark for mark in SEPARATORS if mark != separator and mark in head), None)
    hint = f"separator: {other!r}" if len(names) == 1 and other is not None else None
    check_columns(source, names, str(file), hint)
    if repeated := {name for name in names if names.count(name) > 1} & set(columns_of(source)):
        raise TrainingError(f"{file} has the column {min(repeated)!r} twice", where="train.data.path")
    numeric = {column for columns in source.numbers.values() for column in columns} - set(source.categories)
    options = csv.ConvertOptions(
        include_columns=columns_of(source),
        column_types={column: string() for column in columns_of(source) if column not in numeric},
        strings_can_be_null=False,
    )
    try:
        return datasets.Dataset(csv.read_csv(file, parse_options=parse, convert_options=options))
    except ArrowInvalid as error:
        said = str(error).splitlines()[0]
        fix = "save it as UTF-8" if "UTF8" in said else None
        raise TrainingError(f"{file} cannot be read: {said}", where="train.data.path", hint=fix) from error


def _saved(source: TableSource) -> Read:
    import datasets

    whole = datasets.load_from_disk(str(there(source.path)))
    wanted = _splits(source)
    if not isinstance(whole, datasets.DatasetDict):
        if odd := [split for name, split in wanted.items() if name != "train"]:
            raise TrainingError(f"{source.path} has no splits, so that there is no {odd[0]!r}")
        return _of_parts(source, {"train": whole})
    for split in wanted.values():
        if split not in whole:
            raise TrainingError(
                f"{source.path} has no split {split!r} (there are: {', '.join(whole)})", hint=suggest(split, whole)
            )
    return _of_parts(source, {name: whole[split] for name, split in wanted.items()})


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
    made = Read({name: Part.of(rows) for name, rows in parts.items()})
    for rows in parts.values():
        check_columns(source, rows.column_names, called(source))
    made.notes.append(f"{called(source)}: {', '.join(f'{len(rows)} rows ({name})' for name, rows in parts.items())}")
    if len(parts) > 1:
        made.rule = f"splits {', '.join(_splits(source).values())}"
    return made


def _paths(source: TableSource) -> dict[str, str]:
    given = {"train": source.path, "validation": source.validation_path, "test": source.test_path}
    return {name: path for name, path in given.items() if path}


def _splits(source: TableSource) -> dict[str, str]:
    given = {"train": source.split, "validation": source.validation_split, "test": source.test_split}
    return {name: split for name, split in given.items() if split}


def there(path: str) -> Path:
    """``path``, which must exist.

    Raises:
        TrainingError: It does not.
    """
    if not Path(path).exists():
        raise TrainingError(
            f"{path} does not exist",
            where="train.data",
            hint=f"looked for in {os.getcwd()} too; --set train.data.path=… says where it lies now",
        )
    return Path(path)
