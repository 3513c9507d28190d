"""Define types of recipe fields: selectors, and paths that are looked for next to the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

Selector = Annotated[
    str,
    Field(
        min_length=1,
        description="A site or a selector of sites: layer4.1, encoder.layer[-2:], **.attention, "
        "{layer1,layer2}, type:BatchNorm2d, @head, @blocks[3], re:…; !… excludes.",
    ),
]


class BesideRecipe:
    """Mark a field that may hold the path of a file, which is looked for next to the recipe first.

    ``donor: Annotated[str, BesideRecipe()]``
    """


def files_beside(model: BaseModel, folder: Path) -> dict[str, str]:
    """Get the paths of fields marked :class:`BesideRecipe` whose files are in ``folder``."""
    return {
        name: str(folder / value)
        for name, info in type(model).model_fields.items()
        if any(isinstance(mark, BesideRecipe) for mark in info.metadata)
        and isinstance(value := getattr(model, name), str)
        and (folder / value).exists()
    }
