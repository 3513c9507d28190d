"""Read folders of pictures by rules of our own: which folder is a class, which a split, which file is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
"""Folders at the top that are splits, where all are such; in capitals too."""
PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".ico"),
)
"""What pictures are called, in capitals too."""
SYSTEM_FOLDERS = ("__MACOSX",)
SHOWN = 3


@dataclass
class PictureFolder:
    """What a folder holds.

    Attributes:
        root: The folder.
        parts: By split (``train`` where there are no splits): path below ``root`` and class of each picture.
        split_folders: Whether the splits come from folders.
        left_out: Files that are no pictures, by their path below ``root``.
        unclassed: Pictures that lie in no class's folder.
        empty: Folders of classes without a picture.
    """

    root: Path
    parts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    split_folders: bool = False
    left_out: list[str] = field(default_factory=list)
    unclassed: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes of all splits, in natural order."""
        return natural({name for rows in self.parts.values() for _, name in rows})

    def notes(self) -> list[str]:
        """One line of what was read, and one for each kind of thing that was left out."""
        files = sum(map(len, self.parts.values()))
        splits = ", ".join(f"{name} {len(rows)}" for name, rows in self.parts.items())
        text = f"{self.root}: {files} pictures, {len(self.classes)} classes, "
        lines = [text + (f"{len(self.parts)} splits ({splits})" if self.split_folders else "no splits")]
        for what, names in (
            ("hidden files and files that are no pictures", self.left_out),
            ("pictures outside the folders of classes", self.unclassed),
            ("folders without a picture", self.empty),
        ):
            if names:
                more = ", …" if len(names) > SHOWN else ""
                lines.append(f"{self.root}: left out {len(names)} {what} ({', '.join(names[:SHOWN])}{more})")
        return lines


def read_folder(root: Path) -> PictureFolder:
    """Read the pictures below ``root``.

    The folders at the top are splits if every one of them is called train, val, valid, validation or test, and else
    classes. What lies in a class's folder belongs to it, however deep. Hidden files, what systems leave behind
    (``Thumbs.db``, ``__MACOSX``) and files that are no pictures by their name are left out and counted.

    Raises:
        TrainingError: It is no folder, holds no folder for each class, or names a split twice.
    """
    if not root.is_dir():
        raise TrainingError(f"{root} is a file, and pictures are read from a folder", where="train.data.path")
    found = PictureFolder(root)
    top = _folders(root, found)
    splits = bool(top) and all(folder.name.lower() in SPLIT_NAMES for folder in top)
    found.split_folders = splits
    if not splits:
        found.parts["train"] = _classes(root, top, found)
    else:
        for folder in sorted(top, key=lambda each: list(SPLIT_NAMES).index(each.name.lower())):
            part = SPLIT_NAMES[folder.name.lower()]
            if part in found.parts:
                raise TrainingError(f"{root} has several folders for the split {part}", hint="leave one of them")
            found.parts[part] = _classes(root, _folders(folder, found), found)
    for part, rows in found.parts.items():
        if not rows:
            where = f"{root}: the split {part}" if splits else str(root)
            raise TrainingError(
                f"{where} holds no folder for each class",
                where="train.data.path",
                hint="as in: cats/1.jpg, dogs/7.png, …",
            )
    return found


def _classes(root: Path, folders: list[Path], found: PictureFolder) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for folder in folders:
        pictures = sorted(_pictures(folder, found))
        if not pictures:
            found.empty.append(f"{_below(folder, root)}/")
        rows += [(_below(path, root), folder.name) for path in pictures]
    return rows


def _folders(folder: Path, found: PictureFolder) -> list[Path]:
    """The folders in ``folder`` by name; the files in it belong to no class and are noted."""
    inside = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not _hidden(path.name):
                inside.append(path)
            else:
                found.left_out += [_below(file, found.root) for file in _files(path)]
        else:
            (found.unclassed if _is_picture(path) else found.left_out).append(_below(path, found.root))
    return inside


def _pictures(folder: Path, found: PictureFolder) -> Iterator[Path]:
    for path in _files(folder):
        hidden = any(_hidden(part) for part in path.relative_to(folder).parts)
        if not hidden and _is_picture(path):
            yield path
        else:
            found.left_out.append(_below(path, found.root))


def _files(folder: Path) -> Iterator[Path]:
    """All files below ``folder``; folders that are links are followed, each once."""
    seen: set[str] = set()
    for where, inside, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside.sort()
        yield from (Path(where, file) for file in sorted(files))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_picture(path: Path) -> bool:
    return not _hidden(path.name) and path.suffix.lower() in PICTURES


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
