"""What a recipe's ``train:`` section says. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from surgeon.operation import Objective

Digit = Annotated[int, Field(ge=0, le=9)]


class Digits(BaseModel):
    """scikit-learn's handwritten digits: 1797 scans of 8 x 8 pixels, in the package, so no network is needed.

    The test samples are the same ones whatever the seed: a fixed share of every class, drawn once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: Literal["digits"] = "digits"
    classes: list[Digit] = Field(default_factory=lambda: list(range(10)), min_length=2)
    """The digits to use; their labels are 0, 1, 2, … in this order."""
    per_class: PositiveInt | None = None
    """Labelled training samples of each class; all of them if left out."""
    canvas: int = Field(default=16, ge=8, le=64)
    """Each scan lies at a random place of a black canvas of canvas x canvas pixels; 8 leaves no room to move."""
    size: int = Field(default=64, ge=8, le=512)
    """The canvas is resized to size x size pixels."""
    channels: Literal[1, 3] = 3
    """3 repeats the grey channel, for networks that take colour."""
    test_fraction: float = Field(default=0.4, gt=0, lt=1)
    """The share of every class that is held out for testing."""
    seed: int | None = None
    """Draws the ``per_class`` samples; the recipe's seed if left out."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: list[int]) -> list[int]:
        if len(set(classes)) != len(classes):
            raise ValueError("a digit stands twice; name each once")
        return classes


class TrainSettings(BaseModel):
    """How the edited network is fine-tuned, on the transformers Trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Digits | None = None
    """What to train on. Python callers may hand datasets to ``train`` instead."""
    evaluate: Digits | None = None
    """Whose test split to evaluate on; that of ``data`` if left out."""
    objectives: list[Objective] | None = Field(default=None, min_length=1)
    """The losses; cross-entropy of the output ``logits`` against the column ``labels`` if left out.
    What operations ask for (a domain branch, task heads) is added to them."""
    epochs: PositiveFloat = 10
    """Passes over the training samples."""
    batch_size: PositiveInt = 32
    """Training samples in a step, on each device."""
    learning_rate: PositiveFloat = 1e-3
    """The peak learning rate of AdamW; ``arguments`` may set ``lr_scheduler_type``, ``optim`` and others."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Anything else that transformers.TrainingArguments takes: ``bf16: true``, ``weight_decay: 0.01``, …"""
    baseline: Literal["none", "scratch"] = "none"
    """scratch: also train the same network from fresh weights on the same samples, to compare."""

    @model_validator(mode="after")
    def _no_leak(self) -> Self:
        if self.data and self.evaluate and self.data.test_fraction != self.evaluate.test_fraction:
            raise ValueError("evaluate.test_fraction differs from data.test_fraction: test samples would be trained on")
        return self
