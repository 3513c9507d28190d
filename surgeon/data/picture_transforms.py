"""Make a network's input of a decoded picture: by transformers' processor, or by torchvision's functions."""

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
"""Mean and deviation of grey pictures, where nothing says others."""


def chosen_pictures(pixels: Pixels, stated: Preprocessing = UNKNOWN) -> dict[str, Any]:
    """How pictures become inputs: as the checkpoint says, with the single values that the recipe gives.

    Args:
        pixels: The recipe's.
        stated: The checkpoint's.

    Raises:
        TrainingError: The recipe gives a value that the checkpoint's processor has no place for.
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
                f"the checkpoint's {pictures['config'].get('image_processor_type')} has no fixed size of pictures",
                where="train.data.pixels.size",
                hint="leave size out",
            )
        pictures = sized
    given = {"mean": pixels.mean, "std": pixels.std}
    if pictures["library"] == TORCHVISION:
        return pictures | {name: list(value) for name, value in given.items() if value is not None}
    config = dict(pictures["config"])
    for name, value in given.items():
        if value is not None:
            config |= {f"image_{name}": list(value), "do_normalize": True}
    return pictures | {"config": config}


class PictureTransform:
    """Makes the inputs of one picture.

    Args:
        pictures: How; see :mod:`surgeon.interfaces.preprocessing`.
        arguments: What the network's forward takes by name; None where it is not known.

    Attributes:
        names: What the inputs are called, ``pixel_values`` as a rule the first.
        size: Height and width of what comes of a square picture.
        fills: Whether pictures of different sizes make a batch, filled up with zeros.
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
        probe = self._made(Image.new(mode, (64, 64)))
        taken = {PIXELS} if arguments is None else arguments
        self.names = [name for name in probe if name in taken] or list(probe)[:1]
        self.size: tuple[int, int] = tuple(probe[self.names[0]].shape[-2:])  # type: ignore[assignment]

    def __call__(self, picture: Image) -> dict[str, Tensor]:
        """The inputs of a decoded picture, without a batch dimension."""
        made = self._made(picture)
        return {name: made[name] for name in self.names}

    def _made(self, picture: Image) -> dict[str, Tensor]:
        try:
            return self.make(picture)
        except Exception as error:  # whatever a processor raises at a picture, or at settings that do not go together
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TrainingError(
                f"the checkpoint's processor refuses a picture of {picture.width} x {picture.height} pixels: {said}",
                where="train.data",
                hint="look at the preprocessor_config.json beside the weights",
            ) from error


def _by_torchvision(pictures: Mapping[str, Any]) -> Callable[[Any], dict[str, Tensor]]:
    """As torchvision's presets of its weights do: resize and crop the picture, then scale and normalise."""
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
