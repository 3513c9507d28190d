"""Types of recipe fields: selectors, and paths that are looked for beside the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    pass


Selector = Annotated[
    str,
    Field(
        min_length=1,
        description="A site or a selector of sites: layer4.1, encoder.layer[-2:], **.attention, "
        "{layer1,layer2}, type:BatchNorm2d, @head, @blocks[3], re:…; !… leaves out.",
    ),
]


class BesideRecipe:
    """Marks a field that may hold the path of a file, which is looked for beside the recipe first.

    ``donor: Annotated[str, BesideRecipe()]``
    """


def files_beside(model: BaseModel, folder: Path) -> dict[str, str]:
    """The fields marked :class:`BesideRecipe` whose files lie in ``folder``, with their paths."""
    return {
        name: str(folder / value)
        for name, info in type(model).model_fields.items()
        if any(isinstance(each, BesideRecipe) for each in info.metadata)
        and isinstance(value := getattr(model, name), str)
        and (folder / value).exists()
    }
