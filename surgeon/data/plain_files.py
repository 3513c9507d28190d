"""Sort the files that a path, folder or glob pattern names: pictures, sounds, texts, tables. No torch here."""

from __future__ import annotations

import glob
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from surgeon.data.folders import PICTURES, SPLIT_NAMES, is_hidden, walk_files
from surgeon.data.readers import READERS
from surgeon.errors import TrainingError, counted

FileKind: TypeAlias = Literal["image", "audio", "text", "table", "saved"]
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aiff", ".aif", ".opus")
TEXTS = (".txt",)
TABLES = tuple(READERS)
SAVED = ("dataset_info.json", "dataset_dict.json")
"""Files in a folder that ``datasets`` wrote."""
CALLED = {"image": "pictures", "audio": "sounds", "text": "texts", "table": "tables", "saved": "datasets"}
SHOWN = 3


@dataclass(frozen=True)
class File:
    """One file with samples.

    Attributes:
        path: Its path.
        name: Its name for people: relative to the given folder, or as given.
        label: The folder that may be its class; None if there is none.
        part: The split folder that it is in; None without split folders.
    """

    path: Path
    name: str
    label: str | None = None
    part: str | None = None


@dataclass(frozen=True)
class Files:
    """Files of one kind.

    Attributes:
        kind: Their kind.
        files: The files.
        root: The given path, for messages.
        notes: Remarks about omitted files.
    """

    kind: FileKind
    files: list[File]
    root: str
    notes: list[str] = field(default_factory=list)


def kind_of(path: Path) -> FileKind | None:
    """Return the kind of a file by its suffix; None if unknown."""
    suffix = path.suffix.lower()
    for kind, suffixes in (("image", PICTURES), ("audio", SOUNDS), ("text", TEXTS), ("table", TABLES)):
        if suffix in suffixes:
            return kind  # type: ignore[return-value]
    return None


def is_path(text: str) -> bool:
    """Return whether a text names existing files, or looks like a path or glob pattern."""
    return Path(text).exists() or _is_pattern(text) or "/" in text or "." in text


def sort_files(texts: Sequence[str], accepted: Collection[str]) -> list[Files]:
    """Return the files that paths, folders and patterns name, by kind, in the given order.

    Args:
        texts: Files, folders, and patterns such as ``shots/*.png`` or ``shots/**/*.png``.
        accepted: The kinds that the network takes, which decide what to read from a folder with several kinds.

    Raises:
        TrainingError: A file does not exist, or has an unsupported kind.
    """
    sorted_files: list[Files] = []
    lone: list[File] = []

    def flush() -> None:
        for kind in dict.fromkeys(kind_of(file.path) for file in lone):
            assert kind is not None
            files = [file for file in lone if kind_of(file.path) == kind]
            sorted_files.append(
                Files(kind, files, files[0].name if len(files) == 1 else f"{len(files)} {CALLED[kind]}")
            )
        lone.clear()

    for text in texts:
        for path in _paths(text):
            if path.is_dir():
                flush()
                sorted_files += _in_folder(path, accepted)
            elif kind_of(path) is None:
                raise TrainingError(
                    f"{path} has no suffix of a picture, sound, text or table",
                    hint=f"pictures: {', '.join(PICTURES[:5])}, …; sounds: {SOUNDS[0]}; texts: {TEXTS[0]} with one "
                    f"text per line; tables: {', '.join(TABLES)}",
                )
            else:
                lone.append(File(path, str(path)))
    flush()
    return sorted_files


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text)


def _paths(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    if not _is_pattern(text):
        raise TrainingError(f"{text} does not exist")
    matched = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    several = [match for match in matched if match.is_file() and not is_hidden(match.name)] or matched
    if not several:
        raise TrainingError(f"no file matches {text}")
    return several


def _in_folder(root: Path, accepted: Collection[str]) -> list[Files]:
    if any((root / name).is_file() for name in SAVED):
        return [Files("saved", _saved_splits(root), str(root))]
    tops = [path for path in sorted(root.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    splits = bool(tops) and all(path.name.lower() in SPLIT_NAMES for path in tops)
    files: list[File] = []
    left_out: list[str] = []
    for path in walk_files(root):
        below = path.relative_to(root)
        if any(map(is_hidden, below.parts)) or kind_of(path) is None:
            left_out.append(below.as_posix())
            continue
        folders = below.parts[:-1]
        part = SPLIT_NAMES[folders[0].lower()] if splits and folders else None
        inside = folders[1:] if part else folders
        files.append(File(path, below.as_posix(), inside[0] if inside else None, part))
    kinds = list(dict.fromkeys(kind_of(file.path) for file in files))
    chosen = [kind for kind in kinds if kind in accepted] or kinds
    left_out += [file.name for file in files if kind_of(file.path) not in chosen]
    if not chosen:
        raise TrainingError(f"{root} has no picture, sound, text or table")
    notes = []
    if left_out:
        more = ", …" if len(left_out) > SHOWN else ""
        notes.append(f"{root}: left out {counted(len(left_out), 'file')} ({', '.join(left_out[:SHOWN])}{more})")
    groups = []
    for kind in chosen:
        assert kind is not None
        groups.append(Files(kind, [file for file in files if kind_of(file.path) == kind], str(root), notes))
        notes = []
    return groups


def _saved_splits(root: Path) -> list[File]:
    if not (root / SAVED[1]).is_file():
        return [File(root, str(root))]
    splits = json.loads((root / SAVED[1]).read_text(encoding="utf-8"))["splits"]
    return [File(root, name, part=SPLIT_NAMES.get(name.lower(), name)) for name in splits]
