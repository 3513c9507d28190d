"""What a recipe's ``inputs:`` says. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Shape: TypeAlias = Annotated[list[PositiveInt], Field(min_length=1)]
"""The sizes of a tensor, the batch first: ``[2, 3, 64, 64]``."""


class TensorSettings(BaseModel):
    """One tensor to feed that a shape alone does not describe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shape: Shape | None = None
    """Its sizes, the batch first; those of ``values`` if left out."""
    values: list[Any] | None = Field(default=None, min_length=1)
    """The numbers in it, in nested lists, where random ones will not do: ``[[1, 8, 8]]`` for a grid of patches."""
    dtype: (
        Literal[
            "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
            "complex64", "complex128",
        ]
        | None
    ) = None  # fmt: skip
    """The network's own floating-point type if left out; int64 or bool where ``values`` are such."""
    low: int = 0
    """The least value, for whole numbers."""
    high: int = 2
    """One more than the greatest value, for whole numbers: the size of a vocabulary."""

    @model_validator(mode="after")
    def _shaped(self) -> Self:
        if self.shape is None and self.values is None:
            raise ValueError("needs a shape, or values")
        if self.values is not None and self.shape not in (None, sizes(self.values)):
            raise ValueError(f"the values have the shape {sizes(self.values)}, not {self.shape}")
        return self


def sizes(values: Any) -> list[int]:
    """The shape of numbers in nested lists.

    Raises:
        ValueError: Some are longer than others, or hold what is no number.
    """
    if isinstance(values, (bool, int, float)):
        return []
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{values!r} is no number")
    inner = [sizes(each) for each in values]
    if any(each != inner[0] for each in inner):
        raise ValueError("the lists of values differ in their lengths")
    return [len(values), *(inner[0] if inner else [])]


TensorInput: TypeAlias = Shape | TensorSettings
InputSettings: TypeAlias = Annotated[list[TensorInput], Field(min_length=1)] | Shape | dict[str, TensorInput]
"""Positional inputs (``[[2, 3, 64, 64]]``, or one shape alone) or named ones (``{input_ids: {shape: [2, 8], …}}``)."""
