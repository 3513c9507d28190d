"""Subclass :class:`Source` to add a source of samples."""

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
    """Load samples; subclass this to add a source.

    A subclass declares its name in recipes, ``source: Literal["scans"]``. Its other fields are keys of the recipe, and
    :meth:`load` makes the samples. A plugin registers it through ``surgeon_sources``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    domain: Name | None = None
    """The domain of the samples, for a loss on the column ``domain`` and for metrics by domain; either all sources
    have one, or none."""
    labels: Literal["visible", "hidden"] = "visible"
    """hidden: labels of training samples are not used by any loss, as in a target domain; labels of test samples are
    used for metrics."""

    def load(self, seed: int) -> Splits:
        """Load the training and test samples; the caller applies ``domain`` and ``labels``.

        Args:
            seed: The recipe's seed, for random choices. The choice of test samples must not depend on it.

        Raises:
            TrainingError: The data do not exist, or do not match the settings.
        """
        raise TypeError(f"{type(self).__name__} defines no load(seed)")

    @model_serializer(mode="wrap")
    def _by_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Include ``source`` even if it is the default: a recipe needs it."""
        fields: dict[str, Any] = handler(self)
        return {"source": source_name(type(self)), **fields}


def source_name(kind: type[Source]) -> str:
    """Get the name of a source in recipes: the one value that its field ``source`` may have.

    Raises:
        TypeError: It declares no name, is not a subclass of Source, or does not define ``load``.
    """
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise TypeError(f"{kind!r} is not a subclass of surgeon.Source")
    field = kind.model_fields.get("source")
    names = get_args(field.annotation) if field else ()
    if len(names) != 1 or not isinstance(names[0], str):
        raise TypeError(f'{kind.__name__} declares no name, as in source: Literal["scans"]')
    if kind.load is Source.load:
        raise TypeError(f"{kind.__name__} defines no load(seed)")
    return names[0]
