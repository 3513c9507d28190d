"""Define the recipe keys that every operation with a new head has in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

PoolName = Literal["auto", "avg", "max", "cls", "mean", "gem", "none"]
Name = Annotated[str, Field(min_length=1)]
Classes = PositiveInt | Annotated[list[Name], Field(min_length=1)]


class HeadFields(BaseModel):
    """Hold the options of a new head between the features and its last layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hidden: list[PositiveInt] = []
    """Widths of hidden layers, each followed by a ReLU and the dropout."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of features dropped in training, before the last layer."""
    pool: PoolName = "auto"
    """How to pool positions: the class token (cls), their mean (avg, mean), max, or generalised mean (gem), without
    padding; auto takes the class token if there is one, else the mean; none keeps positions."""


def count(classes: Classes) -> int:
    """Count classes that are given by number or by name."""
    return classes if isinstance(classes, int) else len(classes)


def no_repeats(names: list[str], noun: str = "classes") -> None:
    """Refuse duplicate names.

    Raises:
        ValueError: There are some; the error names them.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{noun} named twice: {', '.join(twice)}")


def output_name(name: str) -> str:
    """Refuse names that an output cannot have.

    Raises:
        ValueError: It is not an identifier, or ``dict`` has a method of that name.
    """
    if not name.isidentifier() or name.startswith("_") or hasattr(dict, name):
        raise ValueError(f"{name!r} cannot name an output: use a word such as domain or species")
    return name
