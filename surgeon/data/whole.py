"""Read a whole source for prediction: nothing is held out, and labels may be missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from surgeon.data.boxes import BoxedPictures
from surgeon.data.class_names import Levels, Numbering, listed, numbered_by
from surgeon.data.inputs import check_inputs, make_inputs, tag_columns, undecoded
from surgeon.data.label_columns import LabelColumn
from surgeon.data.masks import MaskedPictures
from surgeon.data.network import Head, Network
from surgeon.data.plain_files import Files
from surgeon.data.readers import (
    Part,
    Read,
    TableSource,
    called,
    check_columns,
    columns_of,
    existing_path,
    read,
    target_columns,
)
from surgeon.data.rows import Rows, unlabelled
from surgeon.data.sources import Saved, Table
from surgeon.data.tag_columns import label_tensor
from surgeon.data.target_columns import read_columns
from surgeon.data.word_texts import Words
from surgeon.errors import TrainingError, counted
from surgeon.interfaces.splits import Splits

LABEL = "label"
"""The column with the folder of a file."""
Collate = Callable[[list[dict[str, Tensor]]], dict[str, Tensor]]


@dataclass
class Samples:
    """Samples for prediction.

    Attributes:
        rows: The samples, as mappings of column names to tensors.
        names: The name of each: its file or row.
        inputs: The columns that are the network's inputs.
        collate: Makes a batch.
        parts: The split of each; empty without splits.
        original_labels: Labels as the data have them, by label column, for those without class numbers.
        classes: The names of classes or questions, by label column.
        domains: The names of the domains in the column ``domain``.
        notes: Remarks on what was read and left out.
        used: The preprocessing, as plain values.
    """

    rows: Dataset[Any]
    names: list[str]
    inputs: tuple[str, ...]
    collate: Collate
    parts: list[str] = field(default_factory=list)
    original_labels: dict[str, list[Any]] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    used: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


def from_splits(splits: Splits, part_names: Sequence[str]) -> list[Samples]:
    """Return the samples of the requested parts, in order."""
    per_part: list[Samples] = []
    for part in part_names:
        rows = getattr(splits, part)
        if rows is None:
            continue
        size = len(rows)
        names = rows.row_ids(range(size)) if hasattr(rows, "row_ids") else [str(number) for number in range(size)]
        plain = rows.unvaried() if hasattr(rows, "unvaried") else rows
        notes = [] if per_part else list(splits.notes)
        classes = {label: tuple(class_names) for label, class_names in splits.names.items()}
        parts = [part] * size
        per_part.append(
            Samples(
                plain,
                names,
                splits.inputs,
                splits.collate,
                parts,
                {},
                classes,
                tuple(splits.domains),
                notes,
                dict(splits.preprocessing),
            )
        )
    return per_part


def read_files(files: Files, like: TableSource, label: str | None, network: Network, *, strict: bool) -> list[Samples]:
    """Read pictures, sounds or texts; use their folders as classes if they match.

    Args:
        files: The files.
        like: Columns and preprocessing; only the column of the files' kind is used.
        label: The label column with classes; None if there is none.
        network: What the data must fit.
        strict: Whether to refuse classes that the network does not have; otherwise labels are shown unchanged.

    Raises:
        TrainingError: A file cannot be read or, if ``strict``, the classes are not the network's.
    """
    import datasets

    if files.kind == "text" and isinstance(like.text, list):
        raise TrainingError(
            f"the network was trained on pairs of texts, but {files.root} has one text per line",
            hint=f"give a table with the columns {' and '.join(like.text)}",
        )
    names, values, folders, parts = _entries(files)
    if files.kind == "text" and network.preprocessing.texts.get("words"):
        values = [text.split() for text in values]
    class_notes, labelled = _folders_as_classes(files, folders, label, network, strict=strict)
    count = counted(len(values), "text" if files.kind == "text" else "file")
    notes = [*files.notes, *class_notes, f"{files.root}: {count}"]
    columns: dict[str, list[Any]] = {files.kind: values}
    settings: dict[str, Any] = {"image": None, "audio": None, "text": None, "numbers": {}, "targets": {}, "group": None}
    settings["mask"] = None
    settings[files.kind] = files.kind
    if labelled and label is not None:
        columns[LABEL] = [folder or "" for folder in folders]
        settings["targets"] = {label: LABEL}
    source = Table.model_construct(**{**dict(like), **settings, "source": "table", "path": files.root})
    part = Part.of(datasets.Dataset.from_dict(columns), names)
    data = Read({"train": part}, notes=notes, places={"train": files.root})
    samples = _samples(source, data, network, strict=strict)
    if any(parts):
        samples.parts = [parts[int(number)] or "" for number in samples.rows.numbers]  # type: ignore[attr-defined]
    return [samples]


def read_tables(files: Files, like: TableSource, network: Network, *, strict: bool, lone: bool) -> list[Samples]:
    """Read the rows of tables or of a saved dataset; label columns may be missing unless ``strict``.

    Args:
        files: The tables.
        like: Columns and preprocessing.
        network: What the data must fit.
        strict: Whether to refuse labels that are missing or not the network's; otherwise they are shown unchanged.
        lone: Whether this is the only file, so that row numbers identify rows.

    Raises:
        TrainingError: A table cannot be read, or lacks an input or, if ``strict``, a label.
    """
    per_file = []
    kind = Saved if files.kind == "saved" else Table
    for file in files.files:
        settings = {**dict(like), "source": files.kind, "path": str(file.path), "group": None}
        settings |= {"validation_path": None, "test_path": None}
        if files.kind == "saved":
            settings |= {"split": (file.part and file.name) or "train", "validation_split": None, "test_split": None}
        source = kind.model_construct(**settings)
        columns = _columns_there(source)
        targets = {}
        for target, names in like.targets.items():
            missing = [column for column in ([names] if isinstance(names, str) else names) if column not in columns]
            if not missing:
                targets[target] = names
            elif strict:
                raise TrainingError(
                    f"{file.path} has no column {missing[0]!r} with the labels {target!r} "
                    f"(available: {', '.join(columns)})",
                    hint="surgeon predict needs no labels",
                )
        masked = like.mask if like.mask in columns else None
        if strict and masked is None and like.mask is not None:
            raise TrainingError(f"{file.path} has no column {like.mask!r}, which holds masks")
        source = source.model_copy(update={"targets": targets, "mask": masked})
        data = read(source)
        data.parts["train"].ids = _row_names(source, data, "" if lone else file.name)
        samples = _samples(source, data, network, strict=strict)
        if file.part:
            samples.parts = [file.part] * len(samples)
        per_file.append(samples)
    return per_file


def read_source(source: TableSource, network: Network, *, strict: bool) -> list[Samples]:
    """Read all rows of a source as a recipe has it, part by part.

    Raises:
        TrainingError: It cannot be read or, if ``strict``, its labels are not the network's.
    """
    whole = read(source)
    per_part: list[Samples] = []
    for name, part in whole.parts.items():
        check_columns(source, part.rows.column_names, called(source))
        if part.ids is None:
            part.ids = _row_names(source, Read({"train": part}), "")
        data = Read({"train": part}, whole.text, [] if per_part else whole.notes, None, whole.folder)
        data.places, data.classes = {"train": whole.places[name]}, whole.classes
        samples = _samples(source, data, network, strict=strict)
        if len(whole.parts) > 1:
            samples.parts = [name] * len(samples)
        per_part.append(samples)
    return per_part


def _samples(source: TableSource, data: Read, network: Network, *, strict: bool) -> Samples:
    check_columns(source, data.parts["train"].rows.column_names, called(source))
    data.parts["train"] = undecoded(source, data.parts["train"])
    encoders, inputs, collate, used = make_inputs(source, data, network, 0, trains=False, labelled=strict)
    notes = [*data.notes, *check_inputs(source, data, encoders, network)]
    part = data.parts["train"]
    labels: dict[str, Tensor] = {}
    unchanged: dict[str, list[Any]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for target in target_columns(source):
        head = network.head(target)
        try:
            labels[target], names[target] = _numbered(_only(source, target), target, data, network)
        except TrainingError as error:
            if strict:
                raise
            unchanged[target] = _as_they_stand(source, target, part)
            notes.append(f"the labels {target!r} are shown unchanged: {error.message}")
            continue
        notes += _absent(target, labels[target], head, data.places["train"])
    for encode in encoders:
        if isinstance(encode, BoxedPictures):
            head = network.head(encode.target)
            numbering = numbered_by(encode.target, encode.levels(head, trained=False), head)
            encode.number(numbering)
            names[encode.target] = numbering.names
        if isinstance(encode, MaskedPictures):
            numbering = _of_masks(encode, network, data.places["train"])
            encode.number(numbering)
            names[encode.target] = numbering.names
    selected = [column for column in columns_of(_only(source, None)) if source.kind != "images" or column == "image"]
    rows = Rows(
        part.rows.select_columns(selected),
        encoders,
        labels,
        numbers=part.numbers,
        where=data.places["train"],
        ids=part.ids,
        varied=False,
        by_word=[name for name in tag_columns(source, data, network) if name in labels],
        keep_words=any(isinstance(encode, Words) for encode in encoders),
        whole=part.arrow,
    )
    class_names = {target: classes for target, classes in names.items() if classes}
    return Samples(rows, list(part.names()), inputs, collate, [], unchanged, class_names, (), notes, used)


def _only(source: TableSource, target: str | None) -> TableSource:
    """Return the source with the columns of one label, or of none."""
    if source.kind == "images":
        return source
    targets = {} if target is None else {target: source.targets[target]}
    return source.model_copy(update={"targets": targets, "group": None})


def _numbered(source: TableSource, target: str, data: Read, network: Network) -> tuple[Tensor, tuple[str, ...]]:
    import numpy as np
    import torch

    head = network.head(target)
    column = read_columns(source, data, network)["train"][target]
    if isinstance(column, LabelColumn):
        numbering = numbered_by(target, column.levels(trained=False), head)
        return label_tensor(target, column, numbering, head), numbering.names
    values = torch.from_numpy(np.stack([part.values for part in column], 1)).float()
    return values, tuple(part.name for part in column)


def _of_masks(masks: MaskedPictures, network: Network, where: str) -> Numbering:
    """Return how the classes of masks become the network's class numbers."""
    head = network.head(masks.target)
    if masks.values.classes is None:
        return Numbering(head.names)
    if not head.names:
        return Numbering(tuple(masks.values.classes))
    return numbered_by(masks.target, Levels("text", tuple(masks.values.classes), False, where), head)


def _absent(target: str, values: Tensor, head: Head, where: str) -> list[str]:
    if values.is_floating_point():
        missing = unlabelled(values)
        return [f"{where}: {missing} samples have no {target!r}"] if missing else []
    if not head.names:
        return []
    present = set(values.reshape(-1).tolist())
    absent = [name for number, name in enumerate(head.names) if number not in present]
    missing = unlabelled(values)  # a list of tags is padded with what stands for a missing one
    notes = [f"{where}: no sample of {listed(absent)} ({target!r})"] if 0 < len(absent) < len(head.names) else []
    return notes + ([f"{where}: {missing} samples have no {target!r}"] if missing else [])


def _as_they_stand(source: TableSource, target: str, part: Part) -> list[Any]:
    column = target_columns(source)[target]
    if isinstance(column, str):
        return list(part.rows[column][:])
    return [list(row) for row in zip(*(part.rows[name][:] for name in column), strict=True)]


def _entries(files: Files) -> tuple[list[str], list[Any], list[str | None], list[str | None]]:
    """Return names, values, folders and splits of samples: one per file, or per line of a text."""
    if files.kind != "text":
        values = [str(file.path.absolute()) for file in files.files]
        labels, parts = [file.label for file in files.files], [file.part for file in files.files]
        return [file.name for file in files.files], values, labels, parts
    names, values, folders, splits = [], [], [], []
    for file in files.files:
        for number, line in enumerate(_lines(file.path), 1):
            if line.strip():
                names.append(f"{file.name}:{number}")
                values.append(line)
                folders.append(file.label)
                splits.append(file.part)
    if not values:
        raise TrainingError(f"{files.root} has no text")
    return names, values, folders, splits


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8 text: {error.reason}", hint="save it as UTF-8") from error


def _folders_as_classes(
    files: Files, folders: Sequence[str | None], label: str | None, network: Network, *, strict: bool
) -> tuple[list[str], bool]:
    """Return notes about the folders, and whether they are classes."""
    class_folders = list(dict.fromkeys(folder for folder in folders if folder is not None))
    if not class_folders:
        if strict and label is not None:
            raise TrainingError(
                f"{files.root} has no class folders, so there are no labels to compare with",
                hint="for example: cats/1.jpg, dogs/7.png, …; surgeon predict needs no classes",
            )
        return [], False
    names = network.head(label).names if label is not None else ()
    if label is not None and (strict or not names or set(class_folders) & set(names)):
        return [], True
    noun = "a class of the network" if len(class_folders) == 1 else "classes of the network"
    return [f"{files.root}: the folders {listed(class_folders)} are not {noun}, so they are not used as labels"], False


def _columns_there(source: TableSource) -> list[str]:
    """Return the columns of a table."""
    if source.kind == "table" and Path(source.path).suffix.lower() in (".csv", ".tsv"):
        from pyarrow import ArrowInvalid, csv

        default = "\t" if Path(source.path).suffix.lower() == ".tsv" else ","
        parse = csv.ParseOptions(delimiter=source.separator or default, newlines_in_values=True)
        try:
            return list(csv.open_csv(existing_path(source.path), parse_options=parse).schema.names)
        except (ArrowInvalid, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(f"{source.path} cannot be read: {reason}", hint="a table must be UTF-8 text") from error
    bare = source.model_copy(update={"targets": {}, "mask": None})
    return list(read(bare).parts["train"].rows.column_names)


def _row_names(source: TableSource, data: Read, prefix: str) -> list[str]:
    """Name rows by their files, if every row has one; otherwise by number."""
    rows = data.parts["train"].rows
    column = getattr(source, "image", None) or getattr(source, "audio", None)
    if source.kind != "images" and column is not None and column in rows.column_names:
        values = rows.features[column]
        if getattr(values, "dtype", None) in ("string", "large_string"):
            return [str(value) for value in rows[column][:]]
    return [f"{prefix}:{number}" if prefix else str(number) for number in range(len(rows))]


def limited(samples: Samples, part: str) -> Samples:
    """Select the samples of one part."""
    from surgeon.data.rows import Chosen

    positions = [number for number, name in enumerate(samples.parts) if name == part]
    return dataclasses.replace(
        samples,
        rows=Chosen(samples.rows, positions),
        names=[samples.names[number] for number in positions],
        parts=[part] * len(positions),
        original_labels={
            label: [values[number] for number in positions] for label, values in samples.original_labels.items()
        },
    )
