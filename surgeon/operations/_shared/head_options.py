"""The recipe keys that every operation with a new head has in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

PoolName = Literal["auto", "avg", "max", "cls", "mean", "gem", "none"]
Name = Annotated[str, Field(min_length=1)]
Classes = PositiveInt | Annotated[list[Name], Field(min_length=1)]


class HeadFields(BaseModel):
    """What a new head looks like between the features and its last layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hidden: list[PositiveInt] = []
    """Widths of hidden layers, each followed by a ReLU and the dropout."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of features dropped in training, before the last layer."""
    pool: PoolName = "auto"
    """How positions become one: the class token (cls), their mean (avg, mean), max, or generalised mean (gem),
    padding left out; auto takes the class token where there is one, else the mean; none keeps positions."""


def count(classes: Classes) -> int:
    """The number of classes, given as such or by their names."""
    return classes if isinstance(classes, int) else len(classes)


def no_repeats(names: list[str], what: str = "classes") -> None:
    """Refuse a name that stands twice.

    Raises:
        ValueError: Naming those that do.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} named twice: {', '.join(twice)}")


def output_name(name: str) -> str:
    """Refuse what cannot be the name of an output.

    Raises:
        ValueError: It is no identifier, or a method of every mapping has that name.
    """
    if not name.isidentifier() or name.startswith("_") or hasattr(dict, name):
        raise ValueError(f"{name!r} cannot name an output: take a plain word, such as domain or species")
    return name
