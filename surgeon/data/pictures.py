"""Encode pictures with the checkpoint's processor; vary training pictures with torchvision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from surgeon.data.picture_decoder import decode_picture
from surgeon.data.picture_transforms import PictureTransform, chosen_pictures
from surgeon.data.settings import Pixels
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import UNKNOWN, Preprocessing


class Picture:
    """Encode the pictures of a column as a network's inputs: ``pixel_values`` of shape ``(channels, height, width)``.

    The variation of a training sample depends only on the seed, the epoch and its row, not on the order of samples, the
    number of reading processes or an interruption.

    Args:
        column: The column, of pictures or of their paths.
        pixels: The recipe's settings.
        folder: The folder that paths are relative to.
        seed: The seed of variations.
        stated: The checkpoint's preprocessing.

    Attributes:
        used: The preprocessing, as plain values.
        names: The names of the inputs.
    """

    def __init__(self, column: str, pixels: Pixels, folder: Path, seed: int, stated: Preprocessing = UNKNOWN) -> None:
        self.column = column
        self.folder = folder
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.int64)
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]  # shared with the loader's processes
        self.used = chosen_pictures(pixels, stated)
        self.transform = PictureTransform(self.used, stated.arguments)
        self.names = self.transform.names
        self.augment = list(pixels.augment)
        self.vary = v2.Compose([v2.ToImage(), *self.variations(), v2.ToPILImage()])
        # applied to the normalised picture, whose mean is 0
        self.erase = v2.RandomErasing(p=0.25) if "erase" in pixels.augment else None
        self.varies = bool(pixels.augment)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines variations."""
        self.epoch.fill_(epoch)

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """Encode the picture of a row."""
        picture = self._open(row[self.column], index)
        try:
            picture = decode_picture(picture, self.transform.channels)
        except (ValueError, OSError) as error:  # PIL reads the pixels only here
            raise TrainingError(f"row {index}: the picture in {self.column!r}: {error}", where="train.data") from error
        if varied and self.varies:
            with seeded(self.key(index)):
                sample = self.finish(self.vary(picture), index)
                name = self.names[0]
                return sample if self.erase is None else sample | {name: self.erase(sample[name])}
        return self.finish(picture, index)

    def key(self, index: int) -> str:
        """What decides how a row is varied in this epoch."""
        return f"{self.seed} {int(self.epoch)} {index}"

    def variations(self, fill: Any = 0) -> list[v2.Transform]:
        """How training samples are varied before they are encoded; ``fill`` stands where a rotation leaves a gap."""
        return [_variation(name, self.transform.size, fill) for name in self.augment if name != "erase"]

    def finish(self, picture: Any, index: int) -> dict[str, Tensor]:
        """The inputs of a decoded picture."""
        try:
            inputs = self.transform(picture)
        except TrainingError as error:
            error.message = f"row {index}: {error.message}"
            raise
        return {name: value.as_subclass(Tensor) for name, value in inputs.items()}

    def _open(self, value: Any, index: int) -> Any:
        from PIL import Image

        if isinstance(value, Image.Image):
            return value
        if not isinstance(value, str):
            raise TrainingError(f"row {index} has no picture in {self.column!r}", where="train.data")
        try:
            return Image.open(self.folder / value)
        except OSError as error:
            raise TrainingError(f"{self.folder / value} cannot be read as a picture", where="train.data") from error


@contextmanager
def seeded(key: str) -> Iterator[None]:
    """Draw random numbers by ``key`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
        yield


def _variation(name: str, size: tuple[int, int], fill: Any) -> v2.Transform:
    if name == "flip":
        return v2.RandomHorizontalFlip()
    if name == "crop":
        return v2.RandomResizedCrop(size, scale=(0.6, 1.0), antialias=True)
    if name == "rotate":
        return v2.RandomRotation(15, fill=fill)
    if name == "randaugment":
        return v2.RandAugment()
    return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
