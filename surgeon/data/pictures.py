"""Pictures as inputs of a network, by torchvision's transforms v2."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from surgeon.data.settings import Pixels
from surgeon.errors import TrainingError

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Means and deviations of ImageNet's channels, which trained networks expect."""
GREY = ([0.5], [0.5])


class Picture:
    """Encodes the pictures of a column as ``pixel_values`` of shape ``(channels, size, size)``.

    How a training sample is varied follows from the seed, the epoch and its row alone: not from the order of
    samples, from how many processes read them, or from where a run was interrupted.

    Args:
        column: The column, of pictures or of their paths.
        pixels: How they become inputs.
        folder: Where paths begin.
        seed: The seed of variations.
    """

    def __init__(self, column: str, pixels: Pixels, folder: Path, seed: int) -> None:
        self.column = column
        self.folder = folder
        self.seed = seed
        self.mode = "L" if pixels.channels == 1 else "RGB"
        self.epoch = torch.zeros((), dtype=torch.int64)
        self.epoch.share_memory_()  # type: ignore[no-untyped-call]  # seen by the loader's processes too
        mean, std = GREY if pixels.channels == 1 else IMAGENET
        square = (pixels.size, pixels.size)
        self.vary = v2.Compose(
            [v2.ToImage(), *(_variation(name, square) for name in pixels.augment if name != "erase")]
        )
        # of the finished picture, in which the mean is 0
        self.erase = v2.RandomErasing(p=0.25) if "erase" in pixels.augment else None
        self.varies = bool(pixels.augment)
        self.finish = v2.Compose(
            [
                v2.ToImage(),
                v2.Resize(square, antialias=True),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(pixels.mean or mean, pixels.std or std),
            ]
        )

    def set_epoch(self, epoch: int) -> None:
        """Vary samples in the way of this epoch."""
        self.epoch.fill_(epoch)

    def __call__(self, row: Mapping[str, Any], index: int, varied: bool) -> dict[str, Tensor]:
        """The picture of a row."""
        picture = self._open(row[self.column], index).convert(self.mode)
        if varied and self.varies:
            with torch.random.fork_rng(devices=[]):
                text = f"{self.seed} {int(self.epoch)} {index}"
                torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
                picture = self.finish(self.vary(picture))
                picture = picture if self.erase is None else self.erase(picture)
        else:
            picture = self.finish(picture)
        return {"pixel_values": picture.as_subclass(Tensor)}

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


def _variation(name: str, square: tuple[int, int]) -> v2.Transform:
    if name == "flip":
        return v2.RandomHorizontalFlip()
    if name == "crop":
        return v2.RandomResizedCrop(square, scale=(0.6, 1.0), antialias=True)
    if name == "rotate":
        return v2.RandomRotation(15)
    if name == "randaugment":
        return v2.RandAugment()
    return v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3)
