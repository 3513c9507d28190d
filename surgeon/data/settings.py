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
    """How pictures become a network's input, by torchvision's transforms v2."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    size: int = Field(default=224, ge=8)
    """Pictures are resized to size x size pixels."""
    channels: Literal[1, 3] = 3
    """1 makes them grey."""
    mean: list[float] | None = Field(default=None, min_length=1, max_length=3)
    """What is subtracted from each channel (0…1); ImageNet's means if left out, 0.5 for grey pictures."""
    std: list[PositiveFloat] | None = Field(default=None, min_length=1, max_length=3)
    """What each channel is divided by then; ImageNet's deviations if left out, 0.5 for grey pictures."""
    augment: list[Literal["flip", "crop", "rotate", "colour", "randaugment", "erase"]] = Field(default_factory=list)
    """What training samples are varied by, drawn anew in every epoch: mirrored (flip), a random part of at least
    60 % (crop), up to 15 degrees (rotate), brightness, contrast and saturation by up to 30 % (colour), two operations
    drawn from torchvision's RandAugment (randaugment), a random rectangle set to the mean in one of four (erase)."""

    @model_validator(mode="after")
    def _as_many_as_channels(self) -> Self:
        for name in ("mean", "std"):
            given = getattr(self, name)
            if given is not None and len(given) != self.channels:
                raise ValueError(f"{name} has {len(given)} numbers for {self.channels} channels")
        return self


class Waves(BaseModel):
    """How sounds become a network's input."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rate: PositiveInt = 16000
    """Samples a second that the network was trained with; a .wav file of another rate is refused."""
    longest: PositiveInt = 160000
    """Sounds are cut after so many samples."""
    normalise: bool = True
    """Whether each sound is brought to mean 0 and variance 1."""
    mask: bool = True
    """Whether ``attention_mask`` tells the network where a shorter sound has been filled up with zeros."""


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
