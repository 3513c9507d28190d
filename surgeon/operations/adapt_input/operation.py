"""adapt_input: change the input channels or the resolution of a network trained on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class AdaptInput(Operation):
    """Adapt a trained network to images with other channels, or of another size.

    ``channels``: the filters of the first convolution are summed or copied over the new channels. With W_c the
    filter of old channel c of C, new channel j of N gets ΣW_c / N (``sum``: a grey image in all channels gives the
    same output as before), ΣW_c / C (``mean``: as large as an old filter), or W_(j mod C) · C / N (``repeat``:
    the filters in turn, scaled to keep their sum, as in timm; Wightman 2019).

    ``image_size``: learned position embeddings are interpolated (bicubic) to the new grid of patches; those of class
    tokens are kept (Dosovitskiy et al. 2021). The config and copies of it in the network are updated, so that a
    transformers model keeps its class.

    Shapes: images ``(batch, C, height, width)`` → ``(batch, N, …)``; position embeddings ``(1, tokens, width)``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"channels": 1, "init": "sum"}]})

    channels: PositiveInt | None = None
    """The number of channels of the new images."""
    init: Literal["sum", "mean", "repeat"] = Field(default="sum")
    """How the filters for the new channels are computed."""
    at: Selector = "@stem"
    """The first convolution, or several. Default: the role @stem."""
    image_size: PositiveInt | None = None
    """The side of the new square images, in pixels."""

    @model_validator(mode="after")
    def _something(self) -> AdaptInput:
        if self.channels is None and self.image_size is None:
            raise ValueError("give channels, image_size, or both")
        if self.channels is None and {"init", "at"} & self.model_fields_set:
            raise ValueError("init and at need channels")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Adapt the first convolution, then the position embeddings; see :class:`Operation`."""
        from surgeon.operations.adapt_input.channels import adapt_channels
        from surgeon.operations.adapt_input.resolution import adapt_resolution

        with surgery.bookkeeping():
            if self.channels is not None:
                adapt_channels(surgery, self.at, self.channels, self.init)
            if self.image_size is not None:
                adapt_resolution(surgery, self.image_size)
        return surgery.model
