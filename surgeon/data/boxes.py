"""Encode pictures for detectors, with their boxes, classes and masks, and the size of the picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from surgeon.data.class_names import Levels, Numbering
from surgeon.data.files import OpenedPictures
from surgeon.data.labels import IGNORED
from surgeon.data.network import BOXES, CROWD, LABELS, MASKS, SIZES, Head, Network
from surgeon.data.pictures import Picture, seeded
from surgeon.data.settings import Pixels
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import TORCHVISION, Preprocessing

FOLLOWED = ("flip", "colour", "erase")
"""Variations that boxes can follow."""


def check_pixels(pixels: Pixels, stated: Preprocessing) -> None:
    """Refuse settings of pictures that a detector does not have.

    Raises:
        TrainingError: A setting has no effect, or boxes cannot follow it.
    """
    if unsupported := [name for name in pixels.augment if name not in FOLLOWED]:
        raise TrainingError(
            f"{unsupported[0]} moves pictures in ways that boxes cannot follow exactly",
            where="train.data.pixels.augment",
            hint=f"use {', '.join(FOLLOWED)}",
        )
    if stated.pictures is not None and stated.pictures["library"] == TORCHVISION:
        overridden = [name for name in ("size", "mean", "std") if getattr(pixels, name) is not None]
        if overridden and stated.pictures["resize"] is None:
            raise TrainingError(
                f"torchvision's detectors resize and normalise pictures themselves, so {overridden[0]} has no place",
                where=f"train.data.pixels.{overridden[0]}",
                hint="leave it out; the builder's options min_size, max_size, image_mean and image_std set it",
            )


class DetectionPictures(OpenedPictures):
    """Encodes pictures for a detector: ``pixel_values``, and ``sizes``, the height and width of the picture in pixels.

    Args:
        picture: Encodes the pictures.
        column: The column of pictures.
        folder: The folder that paths are relative to.
        where: The name of the source in messages.
    """

    boxed = False

    def __init__(self, picture: Picture, column: str, folder: Path, where: str) -> None:
        super().__init__(picture, column, folder, where)
        self.picture = picture
        self.vary = v2.Compose([v2.Identity(), *picture.variations()])

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode the picture of a row."""
        picture = self.decoded(row, index)
        parts = self.annotated(row, picture.size)
        if not varied or not self.picture.varies:
            return self._encode(picture, parts, index)
        with seeded(self.picture.key(index)):
            image, parts = self.vary(tv_tensors.Image(F.pil_to_tensor(picture)), parts)
            sample = self._encode(F.to_pil_image(image), parts, index)
            erase, name = self.picture.erase, self.picture.names[0]
            return sample if erase is None else {**sample, name: erase(sample[name])}

    def annotated(self, row: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Return what is known of a picture beside its pixels."""
        return {}

    def decoded(self, row: Mapping[str, Any], index: int) -> Any:
        """Return the picture of a row, upright, with the network's channels."""
        picture, turned = self.upright(row, index, self.picture.transform.channels)
        stated = tuple(row.get("sizes") or ())
        if stated and stated != (picture.height, picture.width):
            name = row[self.column]
            turns = ", upright by its EXIF data" if turned else ""
            raise TrainingError(
                f"{self.where}, row {index}: {name} has {picture.width} x {picture.height} pixels{turns}, and the file "
                f"says {stated[1]} x {stated[0]}",
                where="train.data",
                hint="its boxes would be in wrong places",
            )
        if self.boxed and turned and (not stated or picture.width == picture.height):
            raise TrainingError(
                f"{self.where}, row {index}: {row[self.column]} is turned by its EXIF data, and its boxes may not be",
                where="train.data",
                hint="save the picture upright, without orientation",
            )
        return picture

    def problem(self, row: Mapping[str, Any], index: int) -> str | None:
        """Return what is wrong with a row, in words."""
        try:
            self.annotated(row, self.decoded(row, index).size)
        except TrainingError as error:
            text = error.message.removeprefix(f"{self.where}, row {index}: ")
            return text if error.hint is None else f"{text} ({error.hint})"
        return None

    def _encode(self, picture: Any, parts: Mapping[str, Any], index: int) -> dict[str, Tensor]:
        plain = {name: torch.as_tensor(value).as_subclass(Tensor) for name, value in parts.items()}
        return {**self.picture.finish(picture, index), SIZES: torch.tensor([picture.height, picture.width]), **plain}


class BoxedPictures(DetectionPictures):
    """Encodes pictures with boxes as well.

    A sample has ``labels`` (boxes,) with -100 for none, ``boxes`` (boxes, 4) as ``x1, y1, x2, y2`` in pixels of the
    picture, ``crowd`` (boxes,) and, if asked for, ``masks`` (boxes, height, width). Every sample of a source has the
    same number of boxes, the largest of any picture; those beyond a picture's own are -100 and 0.

    Attributes:
        most: The largest number of boxes in a picture.
        listed: The categories that the training file lists.
        used: Those with a box in it.
        elsewhere: Categories of boxes in the other parts only.
    """

    boxed = True
    target = LABELS

    def __init__(self, picture: Picture, column: str, folder: Path, where: str, *, most: int, masks: bool) -> None:
        super().__init__(picture, column, folder, where)
        self.most = most
        self.masks = masks
        self.numbers: dict[str, int] = {}
        self.listed: tuple[str, ...] = ()
        self.used: tuple[str, ...] = ()
        self.elsewhere: tuple[str, ...] = ()

    def levels(self, head: Head, *, trained: bool) -> Levels:
        """Return the categories to compare with the head's: all that are listed if these are its own, else those used.

        Raises:
            TrainingError: The file has no box.
        """
        if not self.used:
            raise TrainingError(f"{self.where} has no box", where="train.data.path")
        all_named = set(self.listed) == set(head.names) or (not head.names and head.count == len(self.listed))
        return Levels("text", self.listed if all_named else self.used, trained, self.where)

    def number(self, numbering: Numbering) -> None:
        """Give the categories the network's class numbers.

        Raises:
            TrainingError: A category of validation or test boxes is not in training.
        """
        names = [*self.used, *self.elsewhere]
        self.numbers = dict(zip(names, numbering.positions(names, LABELS, self.where), strict=True))

    def annotated(self, row: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """Return boxes, classes, crowds and masks of a row."""
        boxes = torch.zeros(self.most, 4)
        labels = torch.full((self.most,), IGNORED)
        crowd = torch.zeros(self.most, dtype=torch.bool)
        if count := len(row["boxes"]):
            boxes[:count] = torch.tensor(row["boxes"])
            labels[:count] = torch.tensor([self.numbers.get(name, 0) for name in row["categories"]])
            crowd[:count] = torch.tensor(row["crowd"])
        wide, high = size
        framed = tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(high, wide))
        parts: dict[str, Any] = {LABELS: labels, BOXES: framed, CROWD: crowd}
        if self.masks:
            some = [decode_mask(text, high, wide) for text in row["segments"]]
            stacked = np.stack(some) if some else np.zeros((0, high, wide), np.uint8)
            parts[MASKS] = tv_tensors.Mask(torch.from_numpy(stacked))
        return parts


def decode_mask(text: str, height: int, width: int) -> Any:
    """Decode a segmentation: polygons, or run lengths as lists or compressed, to ``(height, width)`` of 0 and 1."""
    from pycocotools import mask as coco_masks

    try:
        segmentation = json.loads(text)
        if isinstance(segmentation, list):
            runs = coco_masks.merge(coco_masks.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            runs = coco_masks.frPyObjects(segmentation, height, width)
        else:
            runs = segmentation
        mask = coco_masks.decode(runs)
    except Exception as error:  # pycocotools raises what its C code meets
        raise TrainingError(f"a segmentation cannot be decoded: {error}", where="train.data") from error
    if mask.shape != (height, width):
        raise TrainingError(
            f"a segmentation is of {mask.shape[1]} x {mask.shape[0]} pixels, not {width} x {height}", where="train.data"
        )
    return np.ascontiguousarray(mask)


def detection_pictures(
    source: Any, column: str, folder: Path, where: str, network: Network, seed: int, most: int | None
) -> DetectionPictures:
    """Return the encoder of a detector's pictures; ``most`` is the largest number of boxes, None without boxes.

    Raises:
        TrainingError: The settings of pictures do not fit a detector.
    """
    check_pixels(source.pixels, network.preprocessing)
    picture = Picture(column, source.pixels, folder, seed, network.preprocessing)
    if most is None:
        return DetectionPictures(picture, column, folder, where)
    return BoxedPictures(picture, column, folder, where, most=most, masks=source.masks)


def unlike(network: Network) -> TrainingError:
    """Return the error for a network that detects no boxes."""
    return TrainingError(
        network.refusal or "the data have boxes, and the network is not a detector that surgeon can train",
        where="train.data",
        hint="use one of torchvision.models.detection, or a transformers …ForObjectDetection",
    )
