"""append: add a layer after a network's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict, PositiveInt, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.operations._shared.layer_options import LayerFields

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class Append(LayerFields, Operation):
    """Add a layer between the features and the head, or at the end of a network without a head.

    This is an adaptation layer between a trained trunk and a new head (Oquab et al. 2014). To append several, name
    them with ``called``. The layer reads what the head reads, mostly one vector; to add one to a feature map before
    pooling, use ``insert``.

    Shapes: features ``(batch, …)`` → the same; with ``width``, that number of channels.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "linear", "width": 64, "activation": "relu"}]})

    width: PositiveInt | None = None
    """The number of output channels of a linear or conv, if the network has no head (truncate it first; then
    replace_head adds a new one). Default: as many as its input has."""

    @model_validator(mode="after")
    def _width_of_its_kind(self) -> Append:
        if self.width is not None and self.kind not in ("linear", "conv"):
            raise ValueError(f"width is for kind: linear or conv, not {self.kind}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Append the layer; see :class:`Operation`."""
        from surgeon.graph.edit import exit_site
        from surgeon.operations.insert import insert_layers
        from surgeon.surgery.features import features_of_network, logits_branch

        ends = exit_site(model) is not None and logits_branch(model) is None
        heads = [] if ends else surgery.role("head")
        if not heads:
            site = features_of_network(surgery).site
            insert_layers(surgery, self, [site], "after", width=self.width)
            surgery.recall("outputs", lambda: _outputs(surgery, site))
            return surgery.model
        if len(heads) > 1:
            raise OperationError(
                f"the head has several parts ({', '.join(heads)}), which read different features",
                hint="say where the layer goes with insert: at: SITE",
            )
        if self.width is not None:
            raise OperationError(
                f"the head {heads[0]} needs the current number of channels, not {self.width}",
                hint="truncate the network first, and add a new head with replace_head after append",
            )
        insert_layers(surgery, self, heads, "before")
        return surgery.model


def _outputs(surgery: Surgery, site: str) -> dict[str, list[int]]:
    try:
        return {name: list(shape) for name, shape in surgery.trace().outputs.items()}
    except OperationError as error:
        raise OperationError(
            f"the network does not run with another width after {site}: {error.message}",
            hint=f"end it there first (truncate: after: {site}), or leave width out",
        ) from error
