"""Read folders of pictures with a folder of masks beside them: a mask for each picture, by the name of its file."""

from __future__ import annotations

from pathlib import Path

from surgeon.data.folders import PICTURES, SPLIT_NAMES, is_hidden, walk_files
from surgeon.errors import TrainingError

SHOWN = 3


def read_pairs(root: Path, images: str, masks: str) -> dict[str, list[tuple[Path, Path]]]:
    """List the pictures and masks below ``root`` by split; all are ``train`` if there are no folders for splits.

    If every folder in ``root`` is called train, val, valid, validation or test, each of them has the two folders.
    A picture and its mask have the same path below their folders, except for the suffix.

    Args:
        root: The folder.
        images: The folder of pictures.
        masks: The folder of masks.

    Raises:
        TrainingError: A folder does not exist, or a picture lacks its mask, or a mask its picture.
    """
    if not root.is_dir():
        raise TrainingError(f"{root} is a file, and pictures are read from a folder", where="train.data.path")
    tops = [path for path in sorted(root.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    if not tops or not all(path.name.lower() in SPLIT_NAMES for path in tops):
        return {"train": _pairs(root, images, masks)}
    parts: dict[str, list[tuple[Path, Path]]] = {}
    for top in sorted(tops, key=lambda folder: list(SPLIT_NAMES).index(folder.name.lower())):
        part = SPLIT_NAMES[top.name.lower()]
        if part in parts:
            raise TrainingError(f"{root} has several folders for the split {part}", hint="leave one of them")
        parts[part] = _pairs(top, images, masks)
    return parts


def _pairs(folder: Path, images: str, masks: str) -> list[tuple[Path, Path]]:
    pictures, values = _by_stem(folder / images, "images"), _by_stem(folder / masks, "masks")
    if not pictures:
        raise TrainingError(f"{folder / images} holds no picture", where="train.data.path")
    alone = [("picture", "mask", folder / images, masks, sorted(pictures.keys() - values.keys()))]
    alone.append(("mask", "picture", folder / masks, images, sorted(values.keys() - pictures.keys())))
    for kind, partner, where, beside, stems in alone:
        if stems:
            first_stems = ", ".join(stems[:SHOWN]) + (", …" if len(stems) > SHOWN else "")
            raise TrainingError(
                f"{where}: {len(stems)} {kind}s have no {partner} of that name in {beside} ({first_stems})",
                where="train.data.path",
                hint="a picture and its mask have the same name, except for the suffix: images/7.jpg, masks/7.png",
            )
    return [(pictures[stem], values[stem]) for stem in sorted(pictures)]


def _by_stem(folder: Path, key: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise TrainingError(
            f"{folder} is not a folder", where="train.data.path", hint=f"give the folder's name: {key}: NAME"
        )
    files: dict[str, Path] = {}
    for path in walk_files(folder):
        below = path.relative_to(folder)
        if any(map(is_hidden, below.parts)) or path.suffix.lower() not in PICTURES:
            continue
        stem = below.with_suffix("").as_posix()
        if stem in files:
            raise TrainingError(f"{folder} has {files[stem].name} and {path.name}: which of them is {stem}?")
        files[stem] = path.absolute()
    return files
