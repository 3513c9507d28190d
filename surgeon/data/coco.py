"""Read COCO JSON files: pictures with boxes by category. Check every annotation, and count what is left out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgeon.errors import TrainingError

SLACK = 1.0
"""By how many pixels a box may overlap the picture's edge: tools round, and such a box is cut at the edge."""
BOX_COLUMNS = ("boxes", "categories", "crowd", "annotations", "sizes", "segments")
"""The columns of a COCO file's rows beside ``image``."""
SHOWN = 3
SKIP = "repair it, or leave out such annotations: on_error: skip"


@dataclass
class CocoFile:
    """The content of a COCO JSON file.

    Attributes:
        columns: A value per picture: ``image`` (its path), and :data:`BOX_COLUMNS`; boxes are ``x1, y1, x2, y2`` in
            pixels.
        names: The name of each picture, as the file has it.
        categories: The names of all categories, by their ids' order.
        used: Those with an annotation.
        notes: Remarks on what was read and left out.
    """

    columns: dict[str, list[Any]]
    names: list[str]
    categories: list[str]
    used: list[str]
    notes: list[str] = field(default_factory=list)


def read_coco(file: Path, pictures: Path | None, *, masks: bool, skip: bool) -> CocoFile:
    """Read a COCO JSON file.

    Args:
        file: The file, with ``images``, ``annotations`` and ``categories``.
        pictures: The folder that file names are relative to. Default: that of the file.
        masks: Whether to keep segmentations.
        skip: Whether to leave out annotations that are wrong, with a count, instead of raising.

    Raises:
        TrainingError: The file is not of this format, or an annotation is wrong; the error names file and annotation.
    """
    content = _content(file)
    folder = file.parent if pictures is None else pictures
    images = _by_id(content["images"], file, "images")
    categories = _categories(content["categories"], file)
    rows: dict[Any, dict[str, list[Any]]] = {
        key: {name: [] for name in BOX_COLUMNS} | {"sizes": _size(image)} for key, image in images.items()
    }
    bad: list[str] = []
    cut = 0
    for place, annotation in enumerate(content["annotations"]):
        checked = _checked(annotation, images, categories, masks=masks)
        if isinstance(checked, str):
            text = f"{file}, annotation {_id_of(annotation, place)}{_of_picture(annotation, images)}: {checked}"
            if not skip:
                raise TrainingError(text, where="train.data.path", hint=SKIP)
            bad.append(text)
            continue
        box, was_cut = checked
        cut += was_cut
        row = rows[annotation["image_id"]]
        row["boxes"].append(box)
        row["categories"].append(categories[annotation["category_id"]])
        row["crowd"].append(bool(annotation.get("iscrowd")))
        row["annotations"].append(str(_id_of(annotation, place)))
        row["segments"].append(json.dumps(annotation["segmentation"]) if masks else "")
    counts = Counter(name for row in rows.values() for name in row["categories"])
    names = [str(images[key]["file_name"]) for key in rows]
    coco_file = CocoFile(
        {"image": [str((folder / name).absolute()) for name in names]}
        | {name: [row[name] for row in rows.values()] for name in BOX_COLUMNS},
        names,
        list(categories.values()),
        [name for name in categories.values() if counts[name]],
    )
    coco_file.notes = _notes(file, coco_file, bad, cut)
    return coco_file


def _notes(file: Path, coco_file: CocoFile, bad: list[str], cut: int) -> list[str]:
    boxes = sum(map(len, coco_file.columns["boxes"]))
    notes = [f"{file}: {len(coco_file.names)} pictures, {boxes} boxes of {len(coco_file.used)} categories"]
    if bad:
        more = "; …" if len(bad) > SHOWN else ""
        notes.append(f"{file}: left out {len(bad)} annotations ({'; '.join(bad[:SHOWN])}{more})")
    if cut:
        notes.append(f"{file}: {cut} boxes that cross the edge by up to {SLACK:g} pixel were cut there")
    if crowds := sum(map(sum, coco_file.columns["crowd"])):
        notes.append(f"{file}: {crowds} crowd annotations are not trained on; predictions inside them do not count")
    if empty := sum(not boxes for boxes in coco_file.columns["boxes"]):
        notes.append(f"{file}: {empty} pictures have no box, and train the background only")
    if unused := [name for name in coco_file.categories if name not in coco_file.used]:
        notes.append(f"{file}: no annotation of {', '.join(unused)}")
    return notes


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise TrainingError(f"{file} cannot be read as JSON: {error}", where="train.data.path") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise TrainingError(
                f"{file} is not a COCO file of boxes: it has no list {key!r}",
                where="train.data.path",
                hint='it needs {"images": […], "annotations": […], "categories": […]}',
            )
        if not all(isinstance(entry, dict) for entry in content[key]):
            raise TrainingError(
                f"{file} is not a COCO file: an entry of {key} is not an object", where="train.data.path"
            )
    if not content["images"]:
        raise TrainingError(f"{file} lists no picture", where="train.data.path")
    return dict(content)


def _by_id(entries: list[dict[str, Any]], file: Path, section: str) -> dict[Any, dict[str, Any]]:
    by_id: dict[Any, dict[str, Any]] = {}
    for place, entry in enumerate(entries):
        key = entry.get("id")
        wrong = (
            "no id" if not isinstance(key, (int, str)) else "an id that an earlier one has" if key in by_id else None
        )
        if (
            section == "images"
            and wrong is None
            and not (isinstance(entry.get("file_name"), str) and entry["file_name"])
        ):
            wrong = "no file_name"
        if wrong is not None:
            raise TrainingError(f"{file}: {section}[{place}] has {wrong} (id {key!r})", where="train.data.path")
        by_id[key] = entry
    return by_id


def _categories(entries: list[dict[str, Any]], file: Path) -> dict[Any, str]:
    names = {key: entry.get("name") for key, entry in _by_id(entries, file, "categories").items()}
    categories = {key: str(name) for key, name in names.items() if name != "" and isinstance(name, (str, int))}
    if unnamed := [key for key in names if key not in categories]:
        raise TrainingError(f"{file}: the category {unnamed[0]!r} has no name", where="train.data.path")
    if twice := [name for name, count in Counter(categories.values()).items() if count > 1]:
        raise TrainingError(f"{file}: two categories are called {twice[0]!r}", where="train.data.path")
    return categories


def _size(image: Mapping[str, Any]) -> list[int]:
    """Return height and width as the file has them; empty if it has none."""
    size = [image.get("height"), image.get("width")]
    return [int(side) for side in size if side] if all(isinstance(side, (int, float)) and side for side in size) else []


def _checked(
    annotation: Mapping[str, Any], images: Mapping[Any, Any], categories: Mapping[Any, str], *, masks: bool
) -> tuple[list[float], bool] | str:
    """Return an annotation's box and whether it was cut at the edge; or what is wrong with it, in words."""
    image = _with_id(images, annotation.get("image_id"))
    if image is None:
        return f"no picture has the id {annotation.get('image_id')!r}"
    if _with_id(categories, annotation.get("category_id")) is None:
        return f"no category has the id {annotation.get('category_id')!r}"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"its bbox is {box!r}, not four numbers (left, top, width, height)"
    if masks and not annotation.get("segmentation"):
        return "it has no segmentation, and masks are asked for"
    left, top, width, height = map(float, box)
    if width <= 0 or height <= 0:
        return f"its box has no area: {box} (left, top, width, height)"
    return _within([left, top, left + width, top + height], _size(image), box)


def _within(corners: list[float], size: list[int], box: list[Any]) -> tuple[list[float], bool] | str:
    high, wide = size or (math.inf, math.inf)
    limits = [(0.0, wide), (0.0, high), (0.0, wide), (0.0, high)]
    inside = [min(max(value, low), top) for value, (low, top) in zip(corners, limits, strict=True)]
    over = max(abs(value - clamped) for value, clamped in zip(corners, inside, strict=True))
    if over > SLACK or inside[2] <= inside[0] or inside[3] <= inside[1]:
        of = f" of {wide} x {high} pixels" if size else ""
        return f"its box reaches out of the picture{of}: {box} (left, top, width, height)"
    return inside, over > 0


def _with_id(entries: Mapping[Any, Any], key: Any) -> Any:
    """Return the entry with the id ``key``; None if there is none. JSON may have a list here, which cannot be a key."""
    return entries.get(key) if isinstance(key, (int, str)) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _id_of(annotation: Mapping[str, Any], place: int) -> Any:
    return annotation.get("id", f"number {place}")


def _of_picture(annotation: Mapping[str, Any], images: Mapping[Any, Any]) -> str:
    image = _with_id(images, annotation.get("image_id"))
    return "" if image is None else f" of {image['file_name']}"
