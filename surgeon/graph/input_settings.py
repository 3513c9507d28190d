"""What a recipe's ``inputs:`` says. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Shape: TypeAlias = Annotated[list[PositiveInt], Field(min_length=1)]
"""The sizes of a tensor, the batch first: ``[2, 3, 64, 64]``."""


class TensorSettings(BaseModel):
    """One tensor to feed that a shape alone does not describe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    shape: Shape
    """Its sizes, the batch first."""
    dtype: (
        Literal[
            "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
            "complex64", "complex128",
        ]
        | None
    ) = None  # fmt: skip
    """The network's own floating-point type if left out."""
    low: int = 0
    """The least value, for whole numbers."""
    high: int = 2
    """One more than the greatest value, for whole numbers: the size of a vocabulary."""


TensorInput: TypeAlias = Shape | TensorSettings
InputSettings: TypeAlias = Annotated[list[TensorInput], Field(min_length=1)] | Shape | dict[str, TensorInput]
"""Positional inputs (``[[2, 3, 64, 64]]``, or one shape alone) or named ones (``{input_ids: {shape: [2, 8], …}}``)."""
