"""Subclass :class:`Source` to say where samples come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_serializer,
)
from pydantic_core.core_schema import SerializerFunctionWrapHandler

if TYPE_CHECKING:
    from surgeon.interfaces.splits import Splits


Name = Annotated[str, Field(min_length=1)]


class Source(BaseModel):
    """Where samples come from: what an author of a source subclasses.

    A subclass says by what name a recipe asks for it, ``source: Literal["scans"]``; its other fields are the
    recipe's keys, and :meth:`load` makes the samples. A plugin offers it through ``surgeon_sources``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    domain: Name | None = None
    """The domain that the samples are of, for a loss on the column ``domain`` and for measures by domain; all
    sources have one, or none has."""
    labels: Literal["visible", "hidden"] = "visible"
    """hidden: no label of a training sample is ever fed to a loss, as in a target domain; the test samples keep
    theirs, to measure by."""

    def load(self, seed: int) -> Splits:
        """Make the samples to train on and those to test on; ``domain`` and ``labels`` are seen to elsewhere.

        Args:
            seed: The recipe's, for what is drawn. What is held out for testing must not depend on it.

        Raises:
            TrainingError: The data are not there, or are not what the settings say.
        """
        raise TypeError(f"{type(self).__name__} defines no load(seed)")

    @model_serializer(mode="wrap")
    def _by_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """With ``source``, also where it is the default: a recipe cannot do without."""
        fields: dict[str, Any] = handler(self)
        return {"source": source_name(type(self)), **fields}


def source_name(kind: type[Source]) -> str:
    """What a recipe calls a source: the one value that its field ``source`` may have.

    Raises:
        TypeError: It says none, or is no source that could be loaded.
    """
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise TypeError(f"{kind!r} is no class derived from surgeon.Source")
    field = kind.model_fields.get("source")
    names = get_args(field.annotation) if field else ()
    if len(names) != 1 or not isinstance(names[0], str):
        raise TypeError(f'{kind.__name__} says no name, as in source: Literal["scans"]')
    if kind.load is Source.load:
        raise TypeError(f"{kind.__name__} defines no load(seed)")
    return names[0]
