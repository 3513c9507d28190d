"""Pictures with a class for each pixel: a mask goes through the same geometry as its picture."""

from __future__ import annotations

import inspect
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
from surgeon.data.files import OpenedPictures, open_picture, reason
from surgeon.data.labels import IGNORED
from surgeon.data.network import Head
from surgeon.data.pictures import Picture, seeded
from surgeon.data.processors import load_processor
from surgeon.data.settings import MaskValues
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import TORCHVISION

NUMBERED = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
"""What PIL calls pictures whose pixels are single numbers."""
VOID = 255
"""What processors that count from 1 make of 0."""


class MaskedPictures(OpenedPictures):
    """Encodes pictures with their masks: ``pixel_values``, and ``labels`` of shape ``(height, width)``, -100 for none.

    Args:
        picture: What encodes the pictures.
        column: The column of pictures.
        mask: The column of masks: pictures of class numbers, or their paths.
        target: What the labels are called.
        values: What the recipe says of the numbers in masks.
        folder: Where paths begin.
        where: What the source is called.

    Raises:
        TrainingError: On creation: masks cannot follow what is done to the pictures.
    """

    def __init__(
        self, picture: Picture, column: str, mask: str, target: str, values: MaskValues, folder: Path, where: str
    ) -> None:
        super().__init__(picture, column, folder, where)
        self.picture = picture
        self.mask = mask
        self.target = target
        self.values = values
        self.numbers: Tensor | None = None
        pictures = picture.used
        self.processor: Any = None
        self.from_one = False
        if "randaugment" in picture.augment:
            raise TrainingError(
                "randaugment moves pictures in ways that masks cannot follow",
                where="train.data.pixels.augment",
                hint="use flip, crop, rotate, colour or erase",
            )
        if "rotate" in picture.augment and values.ignore is None:
            raise TrainingError(
                "a rotation leaves corners that have no class, and ignore is null",
                where="train.data.mask_values.ignore",
                hint="name a number that no class has, or leave rotate out",
            )
        if pictures["library"] != TORCHVISION:
            processor = load_processor("AutoImageProcessor", pictures["config"])
            takes = "segmentation_maps" in inspect.signature(processor.preprocess).parameters
            self.processor = processor if takes else None
            self.from_one = takes and bool(getattr(processor, "do_reduce_labels", False))
            if not takes and (getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False)):
                raise TrainingError(
                    f"{type(processor).__name__} crops or fills up pictures, and takes no masks",
                    where="train.data",
                    hint="use the image processor of a network for segmentation",
                )
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: self._void}
        self.vary = v2.Compose([v2.Identity(), *picture.variations(fill)])

    @property
    def _void(self) -> int:
        return VOID if self.values.ignore is None else self.values.ignore

    def levels(self, head: Head, *, trained: bool) -> Levels:
        """Return the names of the numbers in masks, to compare with the head's."""
        return Levels("text", tuple(self.values.classes or ()), trained, self.where)

    def number(self, numbering: Numbering) -> None:
        """Give the classes the numbers that the network has for them."""
        if self.values.classes is not None and numbering.names:
            self.numbers = torch.tensor(numbering.positions(self.values.classes, self.target, self.where))

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The picture and the mask of a row, encoded."""
        picture = self.decoded(row, index)
        mask = self.read(row, picture.size, index)
        if varied and self.picture.varies:
            with seeded(self.picture.key(index)):
                image, mask = self.vary(tv_tensors.Image(F.pil_to_tensor(picture)), tv_tensors.Mask(mask))
                sample = self._encode(F.to_pil_image(image), mask, index)
                erase, name = self.picture.erase, self.picture.names[0]
                return sample if erase is None else {**sample, name: erase(sample[name])}
        return self._encode(picture, mask, index)

    def decoded(self, row: Mapping[str, Any], index: int) -> Any:
        """Return the picture of a row, with the network's channels."""
        picture, turned = self.upright(row, index, self.picture.transform.channels)
        if turned:
            raise TrainingError(
                f"{self.where}, row {index}: the picture is turned by its EXIF data, and its mask may not be",
                where="train.data",
                hint="save the picture upright, without orientation",
            )
        return picture

    def read(self, row: Mapping[str, Any], size: tuple[int, int], index: int) -> Tensor:
        """The class numbers of a mask ``(height, width)``, as the file has them.

        Raises:
            TrainingError: It cannot be read, or is not a mask of that picture.
        """
        start = f"{self.where}, row {index}"
        try:
            mask = open_picture(row[self.mask], self.folder)
            mask.load()
        except Exception as error:  # what PIL raises at a damaged file differs by format
            text = reason(row[self.mask], self.folder, error)
            raise TrainingError(f"{start}: the mask: {text}", where="train.data") from error
        if mask.mode not in NUMBERED:
            raise TrainingError(
                f"{start}: the mask is a picture in colours ({mask.mode}), and its pixels have to be class numbers",
                where="train.data",
                hint="save it as a grey picture or with a palette: 0 for the first class, 1 for the next, …",
            )
        if mask.size != size:
            raise TrainingError(
                f"{start}: the mask has {mask.width} x {mask.height} pixels and its picture {size[0]} x {size[1]}",
                where="train.data",
            )
        return torch.from_numpy(np.asarray(mask).astype(np.int32))

    def problem(self, row: Mapping[str, Any], index: int, classes: int | None) -> str | None:
        """What is wrong with a row, in words: its picture, its mask, or a class that the network does not have."""
        try:
            mask = self.read(row, self.decoded(row, index).size, index)
        except TrainingError as error:
            text = error.message.removeprefix(f"{self.where}, row {index}: ")
            return text if error.hint is None else f"{text} ({error.hint})"
        highest = len(self.values.classes) if self.values.classes is not None else classes
        if highest is None:
            return None
        outside = (mask < 0) | (mask >= highest + self.from_one)
        if self.values.ignore is not None:
            outside &= mask != self.values.ignore
        if not outside.any():
            return None
        first = int(self.from_one)
        return (
            f"the mask holds the number {int(mask[outside][0])}, and the classes have {first} to {highest - 1 + first} "
            "(mask_values: {ignore: …} says which number marks what has no class)"
        )

    def _encode(self, picture: Any, mask: Tensor, index: int) -> dict[str, Tensor]:
        ignored = self._void
        if self.processor is not None:
            if self.from_one:
                mask = mask.masked_fill(mask == ignored, VOID)
                ignored = VOID
            inputs = self.processor(images=picture, segmentation_maps=mask.numpy(), return_tensors="pt")
            sample = {name: inputs[name][0] for name in self.picture.names}
            labels = inputs["labels"][0].long()
        else:
            sample = self.picture.finish(picture, index)
            labels = self._resized(mask, sample[self.picture.names[0]].shape[-2:]).long()
        void = labels == ignored if self.from_one or self.values.ignore is not None else torch.zeros_like(labels).bool()
        if self.numbers is not None:
            labels = self.numbers[labels.masked_fill(void, 0)]
        return {**sample, self.target: labels.masked_fill(void, IGNORED)}

    def _resized(self, mask: Tensor, size: Any) -> Tensor:
        pictures, nearest = self.picture.used, v2.InterpolationMode.NEAREST_EXACT
        mask = mask[None]
        if pictures["library"] == TORCHVISION:
            if pictures["resize"] is not None:
                side = pictures["resize"]
                mask = F.resize(mask, [side] if isinstance(side, int) else list(side), interpolation=nearest)
            if pictures["crop"] is not None:
                mask = F.center_crop(mask, pictures["crop"])
        elif mask.shape[-2:] != size:
            mask = F.resize(mask, list(size), interpolation=nearest)
        return mask[0]
