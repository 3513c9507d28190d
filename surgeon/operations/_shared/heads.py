"""Make the head for the features of a site, with the pooling that suits their layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.nn.heads import Head
from surgeon.operations._shared.head_options import HeadFields
from surgeon.surgery.features import Features, _decodes, _takes_mask, choose_pool, neighbour, shown

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


def new_head(surgery: Surgery, features: Features, outputs: int, fields: HeadFields, **options: Any) -> nn.Module:
    """Make a head for ``features`` with the options in ``fields``.

    Raises:
        OperationError: The features cannot be pooled as asked.
    """
    kind = options.get("kind", "linear")
    pool = choose_pool(features, fields.pool, dense=kind == "conv")
    if kind == "conv" and not 1 <= features.dims <= 3:
        raise OperationError(
            f"{features.site or '.'} produces {shown(features.shape)}, which has no positions to convolve over",
            hint="use kind: linear or mlp, or an earlier site",
        )
    if (
        pool not in ("none", "cls")
        and features.dims == 1
        and _takes_mask(surgery.model)
        and _decodes(surgery.model, features.site)
    ):
        surgery.note(f"{features.site}: padding is pooled too, since attention_mask is the encoder's")
    pooled = "" if pool == "none" else f", pooled by {pool}"
    surgery.note(f"reads {features.site or 'what comes out'} {shown(features.shape)}{pooled}")
    return surgery.new(
        Head,
        features.width,
        outputs,
        hidden=tuple(fields.hidden),
        dropout=fields.dropout,
        pool=pool,
        axis=features.axis,
        dims=features.dims,
        masked=features.masked,
        like=neighbour(surgery.model, features.site),
        **options,
    )
