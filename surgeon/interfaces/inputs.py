"""Define the ``inputs:`` of a recipe. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Shape: TypeAlias = Annotated[list[PositiveInt], Field(min_length=1)]
"""The sizes of a tensor, the batch first: ``[2, 3, 64, 64]``."""


class TensorSettings(BaseModel):
    """Describe one tensor to feed, if its shape is not enough."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shape: Shape | None = None
    """Its sizes, the batch first. Default: the shape of ``values``."""
    values: list[Any] | None = Field(default=None, min_length=1)
    """Its values, in nested lists, if random ones do not work: ``[[1, 8, 8]]`` for a grid of patches."""
    dtype: (
        Literal[
            "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
            "complex64", "complex128",
        ]
        | None
    ) = None  # fmt: skip
    """Its dtype. Default: int64 or bool if ``values`` are, else the network's floating-point dtype."""
    low: int = 0
    """The least value, for integers."""
    high: int = 2
    """One more than the greatest value, for integers: the size of a vocabulary."""

    @model_validator(mode="after")
    def _shaped(self) -> Self:
        if self.shape is None and self.values is None:
            raise ValueError("needs a shape, or values")
        if self.values is not None and self.shape not in (None, sizes(self.values)):
            raise ValueError(f"the values have the shape {sizes(self.values)}, not {self.shape}")
        return self


def sizes(values: Any) -> list[int]:
    """Get the shape of nested lists of numbers.

    Raises:
        ValueError: Their lengths differ, or they contain something other than numbers.
    """
    if isinstance(values, (bool, int, float)):
        return []
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{values!r} is not a number")
    inner = [sizes(value) for value in values]
    if any(shape != inner[0] for shape in inner):
        raise ValueError("the lists of values differ in their lengths")
    return [len(values), *(inner[0] if inner else [])]


TensorInput: TypeAlias = Shape | TensorSettings
InputSettings: TypeAlias = Annotated[list[TensorInput], Field(min_length=1)] | Shape | dict[str, TensorInput]
"""Positional inputs (``[[2, 3, 64, 64]]``, or one shape alone) or named ones (``{input_ids: {shape: [2, 8], …}}``)."""
