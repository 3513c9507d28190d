"""Define the recipe keys of a new layer, and make the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from surgeon.errors import OperationError

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery
    from surgeon.surgery.features import Features

KEYS = {"hidden": ("adapter",), "share": ("dropout",), "kernel": ("conv",), "init": ("linear", "conv")}
"""The kinds of layer to which each key applies."""
BOTTLENECK = 8
"""How many times narrower than its input an adapter's bottleneck is by default."""


class LayerFields(BaseModel):
    """Hold the options of one layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["linear", "conv", "norm", "dropout", "adapter"] = "adapter"
    """adapter: a bottleneck with a residual connection; linear: a matrix over the channels; conv: a convolution over a
    feature map; norm: LayerNorm over the channels; dropout."""
    called: str | None = None
    """The name of the new module. Default: its kind."""
    hidden: PositiveInt | None = None
    """The width of an adapter's bottleneck. Default: an eighth of its input's."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """The share of features that a dropout drops in training."""
    kernel: PositiveInt = 1
    """The odd kernel size of a conv; it does not change the size of the feature map."""
    activation: Literal["none", "relu", "gelu"] | None = None
    """The activation after a linear or conv (default: none), or inside an adapter (default: gelu)."""
    init: Literal["identity", "default"] | None = None
    """Initialise a linear or conv to the identity (the default if the width does not change), or as PyTorch does."""

    @field_validator("called")
    @classmethod
    def _names_a_module(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a module: use letters, digits and _")
        return name

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> LayerFields:
        for key, kinds in KEYS.items():
            if key in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{key} is for kind: {' or '.join(kinds)}, not {self.kind}")
        if self.activation is not None and self.kind in ("norm", "dropout"):
            raise ValueError(f"activation is for kind: linear, conv or adapter, not {self.kind}")
        if self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) would change the size of the feature map: use an odd one")
        return self

    @property
    def module_name(self) -> str:
        """Return the name of the new module."""
        return self.called or self.kind


def new_layer(
    surgery: Surgery, fields: LayerFields, features: Features, *, width: int | None = None, like: nn.Module
) -> nn.Module:
    """Make a layer that reads ``features``.

    Args:
        surgery: Makes the module.
        fields: The options of the layer.
        features: What the layer reads.
        width: The number of output channels. Default: as many as the input has.
        like: A module whose dtype the layer gets.

    Raises:
        OperationError: The layer is a conv and the features are not a channels-first map.
    """
    from surgeon.nn.inserted import layer_for
    from surgeon.surgery.features import shown

    if fields.kind == "conv" and (features.axis != 1 or not 1 <= features.dims <= 3):
        raise OperationError(
            f"{features.site or '.'} produces {shown(features.shape)}, not a channels-first feature map to convolve",
            hint="use kind: linear, or a site that produces a feature map",
        )
    outputs = width or features.width
    activation = fields.activation or ("gelu" if fields.kind == "adapter" else "none")
    init = fields.init or ("identity" if outputs == features.width else "default")
    return surgery.new(
        layer_for,
        fields.kind,
        features.width,
        outputs,
        axis=features.axis,
        dims=features.dims,
        hidden=fields.hidden or max(1, features.width // BOTTLENECK),
        share=fields.share,
        kernel=fields.kernel,
        activation=activation,
        identity=init == "identity" and fields.kind in ("linear", "conv"),
        like=like,
    )
