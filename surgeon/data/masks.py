"""Pictures with a class for each pixel: a mask goes through the same geometry as its picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
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
NOTHING = 0
"""What stands for no class while a mask is resized: also what processors fill pictures up with."""
TRIED = ((37, 53), (200, 150))
"""The sizes of masks by which it is tried whether a processor keeps their numbers: few processors make these sizes."""


class MaskedPictures(OpenedPictures):
    """Encodes pictures with their masks: ``pixel_values``, and ``labels`` of shape ``(height, width)``, -100 for none.

    Masks get the geometry of their pictures, always with the nearest pixel: some processors of transformers (BEiT, DPT)
    interpolate masks as they do pictures, which makes numbers of other classes. Where the recipe names the numbers,
    they count from 0, whatever the checkpoint's processor does.

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
        self.interpolates = False
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
            if takes and getattr(processor, "do_reduce_labels", False):
                processor.do_reduce_labels = False  # it is done here, before what is filled up gets a number
                self.from_one = values.classes is None
                if not self.from_one:
                    picture.used = {**pictures, "config": {**pictures["config"], "do_reduce_labels": False}}
            if not takes and (getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False)):
                raise TrainingError(
                    f"{type(processor).__name__} crops or fills up pictures, and takes no masks",
                    where="train.data",
                    hint="use the image processor of a network for segmentation",
                )
            self.interpolates = takes and self._tried()
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

    def notes(self) -> list[str]:
        """What is to be said of the numbers in masks."""
        if not self.from_one:
            return []
        return [
            "the checkpoint's processor counts classes from 1: 0 in masks stands for none "
            "(mask_values: {classes: [...]} names them from 0 on)"
        ]

    def _encode(self, picture: Any, mask: Tensor, index: int) -> dict[str, Tensor]:
        first = int(self.from_one)
        numbers = mask + 1 - first
        if self.from_one or self.values.ignore is not None:
            numbers = numbers.masked_fill(mask == self._void, NOTHING)
        if self.from_one:
            numbers = numbers.masked_fill(mask == VOID, NOTHING)
        if self.processor is None or self.interpolates:
            sample = self.picture.finish(picture, index)
        if self.processor is None:
            labels = self._resized(numbers, sample[self.picture.names[0]].shape[-2:]).long()
        else:
            inputs = self._processed(picture, numbers, nearest=self.interpolates)
            labels = inputs["labels"][0].long()
            if not self.interpolates:
                sample = {name: inputs[name][0] for name in self.picture.names}
            given = torch.from_numpy(np.union1d(numbers.numpy(), [NOTHING]))
            if not torch.isin(labels, given).all():
                raise self._changed()
        void = labels == NOTHING
        labels = (labels - 1).masked_fill(void, 0)
        if self.numbers is not None:
            labels = self.numbers[labels]
        return {**sample, self.target: labels.masked_fill(void, IGNORED)}

    def _processed(self, picture: Any, numbers: Tensor, *, nearest: bool) -> Any:
        """What the checkpoint's processor makes of a picture and a mask, with ``nearest`` of the nearest pixel."""
        options = {"resample": Image.Resampling.NEAREST} if nearest else {}
        return self.processor(images=picture, segmentation_maps=numbers.numpy(), return_tensors="pt", **options)

    def _tried(self) -> bool:
        """Return whether the processor interpolates masks, so that they have to be resized apart from pictures.

        Raises:
            TrainingError: It changes numbers in masks even if it is to take the nearest pixel, or returns no mask.
        """
        generator = torch.Generator().manual_seed(0)
        interpolates = False
        for height, width in TRIED:
            numbers = torch.randint(0, 2, (height, width), generator=generator, dtype=torch.int32) * 200 + 1
            picture = Image.new("L" if self.picture.transform.channels == 1 else "RGB", (width, height))
            try:
                plain, nearest = (self._processed(picture, numbers, nearest=by)["labels"][0] for by in (False, True))
            except Exception as error:  # a processor may raise anything on a mask, or make none
                text = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise TrainingError(
                    f"{type(self.processor).__name__} makes no class for each pixel of a mask: {text}",
                    where="train.data",
                    hint="use the image processor of a network for semantic segmentation",
                ) from error
            if not set(nearest.unique().tolist()) <= {NOTHING, 1, 201}:
                raise self._changed()
            interpolates |= not torch.equal(plain, nearest)
        return interpolates

    def _changed(self) -> TrainingError:
        return TrainingError(
            f"{type(self.processor).__name__} changes the numbers in masks, which are classes",
            where="train.data",
            hint="use the image processor of another network for segmentation",
        )

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
