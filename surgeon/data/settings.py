"""Say how pictures and sounds become a network's input, and how samples are held out in folds."""

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
    """How pictures become a network's input.

    What is left out is as the checkpoint has it: its processor's files, the transforms of torchvision's weights, timm's
    data config, or what an earlier training used. If it says nothing, pictures are resized to a square of the network's
    size (224 pixels if it has none) and normalised by ImageNet's means and deviations, grey ones by 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: int | None = Field(default=None, ge=8)
    """Pictures have size x size pixels; what is cut off before keeps its share."""
    channels: Literal[1, 3] | None = None
    """1 makes them grey."""
    mean: list[float] | None = Field(default=None, min_length=1, max_length=3)
    """What is subtracted from each channel (0…1)."""
    std: list[PositiveFloat] | None = Field(default=None, min_length=1, max_length=3)
    """What each channel is divided by then."""
    augment: list[Literal["flip", "crop", "rotate", "colour", "randaugment", "erase"]] = Field(default_factory=list)
    """What training samples are varied by, drawn anew in every epoch: mirrored (flip), a random part of at least
    60 % (crop), up to 15 degrees (rotate), brightness, contrast and saturation by up to 30 % (colour), two operations
    drawn from torchvision's RandAugment (randaugment), a random rectangle set to the mean in one of four (erase)."""

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
    """How sounds become a network's input.

    What is left out is as the checkpoint's feature extractor has it, or as an earlier training did it. If it says
    nothing: 16000 samples a second, normalised, with a mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rate: PositiveInt | None = None
    """Samples a second; sounds of another rate are resampled."""
    longest: PositiveInt | None = None
    """Sounds are cut after so many samples; raw ones after 10 seconds if left out."""
    normalise: bool | None = None
    """Whether each sound is brought to mean 0 and variance 1."""
    mask: bool | None = None
    """Whether ``attention_mask`` says where a shorter sound has been filled up with zeros."""


class MaskValues(BaseModel):
    """What the numbers in masks mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    classes: list[str] | None = Field(default=None, min_length=1)
    """The name of each number, from 0 on; compared with the names of the head's classes, where it has any. The numbers
    stand for the head's classes in their order if left out."""
    ignore: int | None = 255
    """The number of pixels that have no class; null where there is none."""


class Folds(BaseModel):
    """One fold of a cross-validation: every sample is tested on in one of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(ge=2)
    """How many folds there are."""
    index: int = Field(ge=0)
    """Which of them is held out, from 0 on; the others are trained on."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.index >= self.count:
            raise ValueError(f"there are folds 0 to {self.count - 1}, and no {self.index}")
        return self
