"""Make a network's input from a decoded picture: with transformers' processor, or with torchvision's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from surgeon.data.processors import load_processor, tensors_of_one
from surgeon.data.settings import Pixels
from surgeon.errors import TrainingError
from surgeon.interfaces.preprocessing import (
    IMAGENET,
    TORCHVISION,
    UNKNOWN,
    Preprocessing,
    channels_of,
    with_channels,
    with_side,
)

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS = "pixel_values"
GREY = ([0.5], [0.5])
"""The default mean and deviation of grey pictures."""


def chosen_pictures(pixels: Pixels, stated: Preprocessing = UNKNOWN) -> dict[str, Any]:
    """Return the preprocessing of pictures: the checkpoint's, with values that the recipe overrides.

    Args:
        pixels: The recipe's settings.
        stated: The checkpoint's preprocessing.

    Raises:
        TrainingError: The checkpoint's processor does not support a value in the recipe.
    """
    pictures: dict[str, Any] = dict(stated.pictures or IMAGENET)
    means = [value for value in (pixels.mean, pixels.std) if value is not None]
    channels = pixels.channels or (len(means[0]) if means else channels_of(pictures))
    if channels != channels_of(pictures):
        pictures = with_channels(pictures, channels)
        if stated.pictures is None:
            pictures |= dict(zip(("mean", "std"), GREY, strict=True))
    if pixels.size is not None:
        sized = with_side(pictures, pixels.size)
        if sized is None:
            raise TrainingError(
                f"the checkpoint's {pictures['config'].get('image_processor_type')} has no fixed image size",
                where="train.data.pixels.size",
                hint="leave size out",
            )
        pictures = sized
    settings = {"mean": pixels.mean, "std": pixels.std}
    if pictures["library"] == TORCHVISION:
        return pictures | {name: list(value) for name, value in settings.items() if value is not None}
    config = dict(pictures["config"])
    for name, value in settings.items():
        if value is not None:
            config |= {f"image_{name}": list(value), "do_normalize": True}
    return pictures | {"config": config}


class PictureTransform:
    """Make the inputs for one picture.

    Args:
        pictures: The preprocessing; see :mod:`surgeon.interfaces.preprocessing`.
        arguments: The names of the network's arguments; None if unknown.

    Attributes:
        names: The names of the inputs, usually with ``pixel_values`` first.
        size: Height and width of the input for a square picture.
        fills: Whether pictures of different sizes are padded with zeros in a batch.
    """

    def __init__(self, pictures: Mapping[str, Any], arguments: frozenset[str] | None = None) -> None:
        from PIL import Image

        self.channels = channels_of(pictures)
        self.make: Callable[[Image.Image], dict[str, Tensor]]
        self.fills = False
        if pictures["library"] == TORCHVISION:
            self.make = _by_torchvision(pictures)
        else:
            processor = load_processor("AutoImageProcessor", pictures["config"])
            self.fills = bool(getattr(processor, "do_pad", False))
            self.make = lambda picture: tensors_of_one(processor(images=picture, return_tensors="pt"))
        mode = "L" if self.channels == 1 else "RGB"
        probe = self._transform(Image.new(mode, (64, 64)))
        accepted = {PIXELS} if arguments is None else arguments
        self.names = [name for name in probe if name in accepted] or list(probe)[:1]
        self.size: tuple[int, int] = tuple(probe[self.names[0]].shape[-2:])  # type: ignore[assignment]

    def __call__(self, picture: Image) -> dict[str, Tensor]:
        """Make the inputs for a decoded picture, without a batch dimension."""
        inputs = self._transform(picture)
        return {name: inputs[name] for name in self.names}

    def _transform(self, picture: Image) -> dict[str, Tensor]:
        try:
            return self.make(picture)
        except Exception as error:  # a processor may raise anything on a picture, or on inconsistent settings
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrainingError(
                f"the checkpoint's processor refuses a picture of {picture.width} x {picture.height} pixels: {reason}",
                where="train.data",
                hint="check the preprocessor_config.json beside the weights",
            ) from error


def _by_torchvision(pictures: Mapping[str, Any]) -> Callable[[Any], dict[str, Tensor]]:
    """Return the transform of torchvision's presets: resize, crop, scale and normalise."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    mode, antialias = InterpolationMode(pictures["interpolation"]), pictures["antialias"]

    def make(picture: Any) -> dict[str, Tensor]:
        if pictures["resize"] is not None:
            size = pictures["resize"] if isinstance(pictures["resize"], int) else list(pictures["resize"])
            picture = F.resize(picture, size, interpolation=mode, antialias=antialias)
        if pictures["crop"] is not None:
            picture = F.center_crop(picture, pictures["crop"])
        values = F.convert_image_dtype(F.pil_to_tensor(picture), torch.float)
        return {PIXELS: F.normalize(values, mean=list(pictures["mean"]), std=list(pictures["std"]))}

    return make
