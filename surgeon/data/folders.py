"""Read folders of pictures: decide which folders are classes, which are splits, and which files to leave out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surgeon.data.class_names import natural
from surgeon.errors import TrainingError

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of top folders that are splits, if all top folders are; case-insensitive."""
PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".ico"),
)
"""Suffixes of pictures; case-insensitive."""
SYSTEM_FOLDERS = ("__MACOSX",)
SHOWN = 3


@dataclass
class PictureFolder:
    """The content of a folder.

    Attributes:
        root: The folder.
        parts: By split (``train`` without splits): path below ``root`` and class of each picture.
        split_folders: Whether the splits are folders.
        left_out: Files that are not pictures, by path below ``root``.
        unclassed: Pictures outside class folders.
        empty: Class folders without pictures.
    """

    root: Path
    parts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    split_folders: bool = False
    left_out: list[str] = field(default_factory=list)
    unclassed: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The class names of all splits, in natural order."""
        return natural({name for rows in self.parts.values() for _, name in rows})

    def notes(self) -> list[str]:
        """Return one line about what was read, and one for each kind of omission."""
        files = sum(map(len, self.parts.values()))
        splits = ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())
        text = f"{self.root}: {files} pictures, {len(self.classes)} classes, "
        lines = [text + (f"{len(self.parts)} splits ({splits})" if self.split_folders else "no splits")]
        for kind, names in (
            ("hidden files and files that are not pictures", self.left_out),
            ("pictures outside class folders", self.unclassed),
            ("folders without a picture", self.empty),
        ):
            if names:
                more = ", …" if len(names) > SHOWN else ""
                lines.append(f"{self.root}: left out {len(names)} {kind} ({', '.join(names[:SHOWN])}{more})")
        return lines


def read_folder(root: Path) -> PictureFolder:
    """Read the pictures below ``root``.

    The top folders are splits if each is called train, val, valid, validation or test, and classes otherwise. Pictures
    at any depth below a class folder belong to the class. Hidden files, system files (``Thumbs.db``, ``__MACOSX``) and
    files without a picture's suffix are left out and counted.

    Raises:
        TrainingError: The path is not a folder, has no class folders, or has a split twice.
    """
    if not root.is_dir():
        raise TrainingError(f"{root} is a file, not a folder of pictures", where="train.data.path")
    content = PictureFolder(root)
    top = _folders(root, content)
    splits = bool(top) and all(folder.name.lower() in SPLIT_NAMES for folder in top)
    content.split_folders = splits
    if not splits:
        content.parts["train"] = _classes(root, top, content)
    else:
        for folder in sorted(top, key=lambda path: list(SPLIT_NAMES).index(path.name.lower())):
            part = SPLIT_NAMES[folder.name.lower()]
            if part in content.parts:
                raise TrainingError(f"{root} has several folders for the split {part}", hint="leave one of them")
            content.parts[part] = _classes(root, _folders(folder, content), content)
    for part, rows in content.parts.items():
        if not rows:
            where = f"{root}: the split {part}" if splits else str(root)
            raise TrainingError(
                f"{where} has no class folders",
                where="train.data.path",
                hint="for example: cats/1.jpg, dogs/7.png, …",
            )
    return content


def check_apart(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Refuse a file in two parts, and return a note on files that a part has twice, as by links.

    Args:
        parts: The files of each part.

    Raises:
        TrainingError: A file is in two parts.
    """
    places: dict[str, tuple[str, str]] = {}
    twice: list[tuple[str, str]] = []
    for name, files in parts.items():
        for path in files:
            part, other = places.setdefault(os.path.realpath(path), (name, path))
            if part != name:
                raise TrainingError(
                    f"{path} is a {part} sample and a {name} sample: held-out samples would be used in training",
                    where="train.data",
                    hint="remove it from one of the folders",
                )
            if other != path:
                twice.append((path, other))
    if not twice:
        return []
    path, other = twice[0]
    return [f"{len(twice)} files are read twice, by links ({path} is {other}): one may be held out"]


def _classes(root: Path, folders: list[Path], content: PictureFolder) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for folder in folders:
        pictures = sorted(_pictures(folder, content))
        if not pictures:
            content.empty.append(f"{_below(folder, root)}/")
        rows += [(_below(path, root), folder.name) for path in pictures]
    return rows


def _folders(folder: Path, content: PictureFolder) -> list[Path]:
    """Return the folders in ``folder`` by name; record its files, which belong to no class."""
    inside = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not is_hidden(path.name):
                inside.append(path)
            else:
                content.left_out += [_below(file, content.root) for file in walk_files(path)]
        else:
            (content.unclassed if _is_picture(path) else content.left_out).append(_below(path, content.root))
    return inside


def _pictures(folder: Path, content: PictureFolder) -> Iterator[Path]:
    for path in walk_files(folder):
        hidden = any(is_hidden(part) for part in path.relative_to(folder).parts)
        if not hidden and _is_picture(path):
            yield path
        else:
            content.left_out.append(_below(path, content.root))


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below ``folder``; linked folders are followed, each once."""
    visited: set[str] = set()
    for where, inside, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in visited:
            inside.clear()
            continue
        visited.add(real)
        inside.sort()
        yield from (Path(where, file) for file in sorted(files))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or a system's leftover."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_picture(path: Path) -> bool:
    return not is_hidden(path.name) and path.suffix.lower() in PICTURES


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
