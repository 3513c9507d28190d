"""The recipe keys of a layer that is put into a network, and the layer that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from surgeon.errors import OperationError

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery
    from surgeon.surgery.features import Features

KEYS = {"hidden": ("adapter",), "share": ("dropout",), "kernel": ("conv",), "init": ("linear", "conv")}
"""The kinds of layer that each key belongs to."""
BOTTLENECK = 8
"""How many times narrower an adapter's bottleneck is than what it reads, unless said."""


class LayerFields(BaseModel):
    """One layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["linear", "conv", "norm", "dropout", "adapter"] = "adapter"
    """adapter: a bottleneck beside the identity; linear: a matrix over the channels; conv: a convolution over a
    map; norm: LayerNorm over the channels; dropout."""
    called: str | None = None
    """The name of the new module; its kind unless said."""
    hidden: PositiveInt | None = None
    """The width of an adapter's bottleneck; by default an eighth of what it reads."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """The share of features that a dropout drops in training."""
    kernel: PositiveInt = 1
    """The odd kernel size of a conv; the size of the map stays."""
    activation: Literal["none", "relu", "gelu"] | None = None
    """Behind a linear or conv (by default none), or inside an adapter (by default gelu)."""
    init: Literal["identity", "default"] | None = None
    """A linear or conv starts as the identity, as it does unless said where the width stays, or as PyTorch draws it."""

    @field_validator("called")
    @classmethod
    def _names_a_module(cls, name: str | None) -> str | None:
        if name is not None and not name.isidentifier():
            raise ValueError(f"{name!r} cannot name a module: take a plain word")
        return name

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> LayerFields:
        for key, kinds in KEYS.items():
            if key in self.model_fields_set and self.kind not in kinds:
                raise ValueError(f"{key} is for kind: {' or '.join(kinds)}, not {self.kind}")
        if self.activation is not None and self.kind in ("norm", "dropout"):
            raise ValueError(f"activation is for kind: linear, conv or adapter, not {self.kind}")
        if self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) would change the size of the map: take an odd one")
        return self

    @property
    def module_name(self) -> str:
        """What the new module is called."""
        return self.called or self.kind


def new_layer(
    surgery: Surgery, fields: LayerFields, features: Features, *, width: int | None = None, like: nn.Module
) -> nn.Module:
    """The layer for ``features``, as ``fields`` say.

    Args:
        surgery: Makes it.
        fields: Say how.
        features: What it reads.
        width: The channels that it makes, where these are others than it reads.
        like: The neighbour whose dtype it takes.

    Raises:
        OperationError: A conv is to read what is no map.
    """
    from surgeon.nn.inserted import layer_for
    from surgeon.surgery.features import shown

    if fields.kind == "conv" and (features.axis != 1 or not 1 <= features.dims <= 3):
        raise OperationError(
            f"{features.site or '.'} produces {shown(features.shape)}, no map with its channels first to convolve",
            hint="use kind: linear, or a site that produces a map",
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
