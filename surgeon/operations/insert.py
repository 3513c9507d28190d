"""insert: add new layers after or before sites of a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.operations._shared.layer_options import LayerFields, new_layer

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery
    from surgeon.surgery.features import Features


class Insert(LayerFields, Operation):
    """Insert a layer after, or before, each of some sites; shapes and the names of other modules do not change.

    By default, insert an adapter (Houlsby et al. 2019): a narrow bottleneck with a residual connection, initialised to
    the identity. With everything else frozen (``freeze: all_but: "**.adapter"``), training the adapters alone fits a
    network to a task. A linear or conv is initialised to the identity too, so that the outputs do not change; a norm
    changes them.

    Shapes: features ``(batch, …)`` → the same.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"at": "@blocks", "kind": "adapter", "hidden": 16}]})

    at: Selector | Annotated[list[Selector], Field(min_length=1)]
    """The sites; each gets its own layer. ``!…`` excludes."""
    where: Literal["after", "before"] = Field(default="after")
    """Whether the layer changes the site's output (after), or its first argument (before)."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Insert the layers; see :class:`Operation`."""
        from surgeon.operations._shared.selection import as_list

        sites = [site.name for site in surgery.select(as_list(self.at))]
        insert_layers(surgery, self, sites, self.where)
        return surgery.model


def insert_layers(
    surgery: Surgery,
    fields: LayerFields,
    sites: list[str],
    where: Literal["after", "before"],
    *,
    width: int | None = None,
) -> None:
    """Insert a layer after or before each site.

    Args:
        surgery: The surgery.
        fields: The options of the layer.
        sites: The sites.
        where: After or before the site.
        width: The number of output channels. Default: as many as the input has.

    Raises:
        OperationError: The site already has a module of that name, or its first argument is not a tensor.
    """
    from torch import nn

    from surgeon.surgery.features import features_at, neighbour

    for site in sites:
        if hasattr(surgery.model.get_submodule(site), fields.module_name):
            raise OperationError(
                f"{site or '.'} already has {fields.module_name!r}", hint="give the new one another name: called: NAME"
            )
    if where == "after":
        produced = [features_at(surgery, site) for site in sites]
        for site, features in zip(sites, produced, strict=True):
            like = neighbour(surgery.model, site)
            layer = new_layer(surgery, fields, features, width=width, like=like)
            surgery.insert(site, layer, name=fields.module_name)
        return
    # An identity before a site shows the shape of its input. Insert all of them first, so that one trace is enough.
    places = []
    for site in sites:
        identity = nn.Identity()
        surgery.insert(site, identity, name=fields.module_name, where="before")
        places.append(next(name for name, module in surgery.model.named_modules() if module is identity))
    before = [_read_at(surgery, site, place) for site, place in zip(sites, places, strict=True)]
    for place, features in zip(places, before, strict=True):
        layer = new_layer(surgery, fields, features, width=width, like=neighbour(surgery.model, place))
        surgery.replace(place, layer)


def _read_at(surgery: Surgery, site: str, place: str) -> Features:
    from surgeon.surgery.features import features_at

    try:
        return features_at(surgery, place)
    except OperationError as error:
        raise OperationError(
            f"the input of {site} cannot be changed: {error.message}",
            hint="its first argument must be a tensor; insert after the site that runs before it",
        ) from error
