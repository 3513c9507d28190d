"""insert: new layers behind or before sites of a trained network."""

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
    """Put a layer behind, or before, each of some sites; shapes, and the names of all other modules, stay.

    By default an adapter (Houlsby et al. 2019): a narrow bottleneck beside the identity, which starts as the
    identity. With everything else frozen (``freeze: all_but: "**.adapter"``), adapters alone fit a network to a task.
    A linear or conv starts as the identity too, so that the network gives what it gave; a norm does not.

    Shapes: features ``(batch, …)`` → the same.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"at": "@blocks", "kind": "adapter", "hidden": 16}]})

    at: Selector | Annotated[list[Selector], Field(min_length=1)]
    """The sites, each of which gets a layer of its own; ``!…`` leaves out."""
    where: Literal["after", "before"] = Field(default="after")
    """Whether the layer changes what a site produces, or what it reads as its first argument."""

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
    """Put a layer behind or before each site.

    Args:
        surgery: The surgery.
        fields: What layer.
        sites: Where.
        where: Behind or before.
        width: The channels that it makes, where these are others than it reads.

    Raises:
        OperationError: There is a module of that name already, or what a site reads is no tensor.
    """
    from torch import nn

    from surgeon.surgery.features import features_at, neighbour

    for site in sites:
        if hasattr(surgery.model.get_submodule(site), fields.module_name):
            raise OperationError(
                f"{site or '.'} has {fields.module_name!r} already", hint="give the new one another name: called: NAME"
            )
    if where == "after":
        behind = [features_at(surgery, site) for site in sites]
        for site, features in zip(sites, behind, strict=True):
            like = neighbour(surgery.model, site)
            layer = new_layer(surgery, fields, features, width=width, like=like)
            surgery.insert(site, layer, name=fields.module_name)
        return
    # what a site reads is seen by an identity before it; all are put in first, so that one trace does
    places = []
    for site in sites:
        seeing = nn.Identity()
        surgery.insert(site, seeing, name=fields.module_name, where="before")
        places.append(next(name for name, module in surgery.model.named_modules() if module is seeing))
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
            f"what {site} reads cannot be changed: {error.message}",
            hint="its first argument must be a tensor; insert behind the site that runs before it",
        ) from error
