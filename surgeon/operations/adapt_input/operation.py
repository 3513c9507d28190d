"""adapt_input: other channels, or another resolution, for a network trained on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class AdaptInput(Operation):
    """Let a trained network take images of other channels, or of another size.

    ``channels``: the first convolution keeps its filters, summed or copied over the channels that come. With W_c the
    filter of old channel c of C, new channel j of N gets ΣW_c / N (``sum``: the same grey image in all channels
    gives what it gave before), ΣW_c / C (``mean``: as large as an old filter), or W_(j mod C) · C / N (``repeat``:
    the filters in turn, scaled so that the sum stays, as in timm; Wightman 2019).

    ``image_size``: learned position embeddings are interpolated, bicubic, over the new grid of patches; class
    tokens keep theirs (Dosovitskiy et al. 2021). The config, and what the network keeps of it, follow,
    so that a transformers model stays a stock class.

    Shapes: images ``(batch, C, height, width)`` → ``(batch, N, …)``; position embeddings ``(1, tokens, width)``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"channels": 1, "init": "sum"}]})

    channels: PositiveInt | None = None
    """The number of channels that come in."""
    init: Literal["sum", "mean", "repeat"] = Field(default="sum")
    """What the filters of the new channels are made of."""
    at: Selector = "@stem"
    """The first convolution, or several; found by its role unless said."""
    image_size: PositiveInt | None = None
    """The side of the square images that come in."""

    @model_validator(mode="after")
    def _something(self) -> AdaptInput:
        if self.channels is None and self.image_size is None:
            raise ValueError("channels or image_size says what to adapt to")
        if self.channels is None and {"init", "at"} & self.model_fields_set:
            raise ValueError("init and at go with channels")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Adapt the first convolution, then the position embeddings; see :class:`Operation`."""
        from surgeon.operations.adapt_input.channels import adapt_channels
        from surgeon.operations.adapt_input.resolution import adapt_resolution

        if self.channels is not None:
            adapt_channels(surgery, self.at, self.channels, self.init)
        if self.image_size is not None:
            adapt_resolution(surgery, self.image_size)
        return surgery.model
