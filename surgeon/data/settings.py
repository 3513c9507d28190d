"""Define settings for pictures, sounds and folds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)


class Pixels(BaseModel):
    """Set how pictures become a network's input.

    Default: as in the checkpoint, which is its processor's files, the transforms of torchvision's weights, timm's data
    config, or an earlier training. If it has none of these, pictures are resized to a square of the network's size (224
    pixels if unknown) and normalised with ImageNet's mean and deviation, grey ones with 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: int | None = Field(default=None, ge=8)
    """Pictures are size x size pixels; the ratio of crop to resize stays."""
    channels: Literal[1, 3] | None = None
    """1 converts them to grey."""
    mean: list[float] | None = Field(default=None, min_length=1, max_length=3)
    """The value to subtract from each channel (0…1)."""
    std: list[PositiveFloat] | None = Field(default=None, min_length=1, max_length=3)
    """The value to divide each channel by."""
    augment: list[Literal["flip", "crop", "rotate", "colour", "randaugment", "erase"]] = Field(default_factory=list)
    """Random variations of training samples, drawn in every epoch: mirroring (flip), a random part of at least 60 %
    (crop), up to 15 degrees (rotate), brightness, contrast and saturation by up to 30 % (colour), two operations of
    torchvision's RandAugment (randaugment), a random rectangle set to the mean in a quarter of the samples (erase)."""

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        counts = {name: len(value) for name in ("mean", "std") if (value := getattr(self, name)) is not None}
        channels: int | None = self.channels
        for name, count in counts.items():
            channels = channels or count
            if count != channels:
                raise ValueError(f"{name} has {count} numbers for {channels} channels")
        return self


class Waves(BaseModel):
    """Set how sounds become a network's input.

    Default: as in the checkpoint's feature extractor or an earlier training. If there is neither: 16000 samples per
    second, normalised, with a mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rate: PositiveInt | None = None
    """Samples per second; sounds with another rate are resampled."""
    longest: PositiveInt | None = None
    """The most samples of a sound, which is cut there; a note counts these. Default for raw sounds: 10 seconds."""
    normalise: bool | None = None
    """Whether to normalise each sound to mean 0 and variance 1."""
    mask: bool | None = None
    """Whether to add an ``attention_mask`` that marks padding."""


class MaskValues(BaseModel):
    """What the numbers in masks mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    classes: list[str] | None = Field(default=None, min_length=1)
    """The name of each number, from 0 on, also where the checkpoint's processor has ``do_reduce_labels``; compared with
    the names of the head's classes, where it has any. If left out, the numbers stand for the head's classes in their
    order: from 0 on, or with ``do_reduce_labels`` from 1 on, and 0 stands for none."""
    ignore: int | None = 255
    """The number of pixels that have no class; null where there is none."""


class Folds(BaseModel):
    """Choose one fold of a cross-validation: every sample is in the test part of one fold."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(ge=2)
    """The number of folds."""
    index: int = Field(ge=0)
    """The fold to hold out, from 0; the others are for training."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"index is {self.index}, but folds are numbered 0 to {self.count - 1}")
        return self
