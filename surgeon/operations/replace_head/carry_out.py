"""How replace_head goes about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from surgeon.errors import OperationError
from surgeon.families.detectors import is_torchvision_detector
from surgeon.graph.edit import exit_site
from surgeon.nn.grafts import TRUNK_OUTPUT
from surgeon.nn.heads import conv_layers, head_layers, last_layer
from surgeon.nn.pooling import Pool
from surgeon.operations._shared.heads import new_head
from surgeon.operations._shared.labels import is_vocabulary_head, set_labels, untie
from surgeon.operations._shared.original_head import drop_auxiliary
from surgeon.operations.replace_head.class_rows import initialise, shared_classes
from surgeon.operations.replace_head.detection import replace_detection_heads
from surgeon.operations.replace_head.stock import to_stock_class
from surgeon.surgery.features import (
    features_at,
    features_of_network,
    logits_branch,
    neighbour,
    scoring_layer,
    shown,
    tapped_site,
)

if TYPE_CHECKING:
    from surgeon.operations.replace_head.fields import ReplaceHeadFields
    from surgeon.surgery.context import Surgery

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS = (nn.Linear, *CONVOLUTIONS)
ROLE = "@head"


def replace_head(operation: ReplaceHeadFields, surgery: Surgery) -> nn.Module:
    """Carry out ``operation``: in place where there is a head, on top of the features where there is none."""
    if operation.at == ROLE and to_stock_class(operation, surgery):
        if operation.aux == "drop":
            _auxiliary(operation, surgery)
        return surgery.model
    model = surgery.model
    if operation.at == ROLE:
        if logits_branch(model) is not None:
            return _replace_on_top(operation, surgery)
        if is_torchvision_detector(model) and exit_site(model) is None:
            return replace_detection_heads(operation, surgery)
        if exit_site(model) is not None or not surgery.role("head"):
            return _put_on_top(operation, surgery)
    for site in [site.name for site in surgery.select(operation.at)]:
        _replace_in_place(operation, surgery, scoring_layer(surgery.model, site))
    if operation.pool not in ("auto", "none"):
        _replace_pool(operation, surgery)
    if operation.at == ROLE:
        _auxiliary(operation, surgery)
    if operation.classes is not None:
        set_labels(surgery.model, operation.classes, operation.problem_type, surgery.families)
    return surgery.model


# ---- on top of features


def _put_on_top(operation: ReplaceHeadFields, surgery: Surgery) -> nn.Module:
    if operation.kind == "none":
        raise OperationError("there is no head to remove: the features come out already")
    if operation.init == "rows":
        raise OperationError("init: rows, but there is no old head to take rows from")
    features = features_of_network(surgery)
    head = new_head(surgery, features, operation.count, operation, kind=operation.kind)
    initialise(surgery, operation, last_layer(head), head, None)
    surgery.branch(TRUNK_OUTPUT, features.site, head)
    surgery.graft().network_output = None
    return surgery.model


def _replace_on_top(operation: ReplaceHeadFields, surgery: Surgery) -> nn.Module:
    branch = logits_branch(surgery.model)
    assert branch is not None  # the caller has seen to it
    site, old = f"grafts.{TRUNK_OUTPUT}.head", branch.head
    features = features_at(surgery, tapped_site(surgery.model, branch))
    if operation.kind == "none":
        raise OperationError(
            "the head stands on features as a branch, which only a head can end",
            hint="leave out the operation that put it there",
        )
    head = new_head(surgery, features, operation.count, operation, kind=operation.kind)
    _start(operation, surgery, head, old if isinstance(old, nn.Identity) else last_layer(old))
    surgery.replace(site, head)
    return surgery.model


# ---- in place


def _replace_in_place(operation: ReplaceHeadFields, surgery: Surgery, site: str) -> None:
    model = surgery.model
    old = model.get_submodule(site)
    if is_vocabulary_head(model, old):
        if operation.at == ROLE:
            raise OperationError(
                f"{site} predicts the next of {getattr(old, 'out_features', 'many')} tokens, it tells no classes apart",
                hint="put a head on its features (multitask, original: drop), or say at: "
                f"{site} if the vocabulary is meant to go",
            )
        untie(model, surgery.families)
        surgery.note(f"{site} no longer shares its weight with the embedding")
    if operation.kind == "none":
        if len(surgery.select(operation.at)) > 1:
            raise OperationError(
                "the head has several parts whose results the network adds up: they cannot be left out",
                hint="use truncate to let features come out",
            )
        surgery.replace(site, surgery.new(nn.Identity))
        return
    extra = _extra_rows(model, old)
    if extra:
        surgery.note(f"{site} keeps one more output behind the classes, for no object")
    outputs = operation.count + extra
    head = _like(operation, surgery, site, old, outputs)
    _start(operation, surgery, head, old, extra)
    surgery.replace(site, head)


def _like(operation: ReplaceHeadFields, surgery: Surgery, site: str, old: nn.Module, outputs: int) -> nn.Module:
    """The new head for the place, and the input, of ``old``."""
    if (layer := next((c for c in LAYERS if isinstance(old, c)), None)) and type(old).forward is not layer.forward:
        return _of_its_class(operation, surgery, site, old, outputs, layer)
    options: dict[str, Any] = {"hidden": tuple(operation.hidden), "dropout": operation.dropout}
    if isinstance(old, CONVOLUTIONS):
        if operation.kind == "cosine":
            raise OperationError(f"{site} is a convolution: use kind: linear, mlp or conv")
        hidden = operation.hidden or ([old.in_channels] if operation.kind == "mlp" else [])
        options |= {"hidden": tuple(hidden), "kernel": 1 if operation.kind == "mlp" else 3}
        options |= {name: getattr(old, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        dims = len(old.kernel_size)
        bias = old.bias is not None
        return surgery.new(conv_layers, old.in_channels, outputs, dims=dims, bias=bias, like=old, **options)
    if operation.kind == "conv":
        raise OperationError(
            f"{site} reads vectors, which have no positions to convolve over",
            hint="truncate at a feature map, then replace_head with kind: conv",
        )
    if isinstance(old, nn.Linear):
        width, bias, like = old.in_features, old.bias is not None, cast("nn.Module", old)
    elif isinstance(old, nn.Identity):
        width, bias, like = surgery.shape(site)[-1], True, neighbour(surgery.model, site)
    else:
        raise OperationError(f"{site} is a {type(old).__name__}, which replace_head does not know how to replace")
    return surgery.new(head_layers, width, outputs, kind=operation.kind, bias=bias, like=like, **options)


def _of_its_class(
    operation: ReplaceHeadFields, surgery: Surgery, site: str, old: nn.Module, outputs: int, layer: type[nn.Module]
) -> nn.Module:
    """Make a layer of the class of ``old``, whose forward may do more than that of ``layer``."""
    cls = type(old)
    if operation.kind != "linear" or operation.hidden or operation.dropout:
        raise OperationError(
            f"{site} is a {cls.__name__}, with a different forward, so only a layer of that class can replace it",
            hint="leave out kind, hidden and dropout",
        )
    if cls.__init__ is not layer.__init__:
        raise OperationError(f"{site} is a {cls.__name__}, which replace_head does not know how to build")
    if isinstance(old, nn.Linear):
        return surgery.new(cls, old.in_features, outputs, bias=old.bias is not None, like=old)
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    options = {name: getattr(old, name) for name in names}
    return surgery.new(cls, old.in_channels, outputs, bias=old.bias is not None, like=old, **options)


def _start(operation: ReplaceHeadFields, surgery: Surgery, head: nn.Module, old: nn.Module, extra: int = 0) -> None:
    """Set the initial values of the last layer of a new head."""
    pairs = None
    if operation.init == "rows":
        weight = getattr(old, "weight", None)
        if weight is None:
            raise OperationError("init: rows, but there is no old head to take rows from")
        number = weight.shape[0] - extra
        pairs = shared_classes(operation, surgery, number)
        surgery.note(f"starts with the rows of {len(pairs)} of the old head's {number} classes")
        pairs += [(operation.count, number)] * extra
    initialise(surgery, operation, last_layer(head), old, pairs)


def _extra_rows(model: nn.Module, old: nn.Module) -> int:
    """1 for a head with one output more than the config has labels: DETR's "no object"."""
    number = getattr(getattr(model, "config", None), "num_labels", None)
    outputs = getattr(old, "out_features", None)
    counts_nothing = re.search(r"Detection|Segmentation", type(model).__name__) is not None
    return int(counts_nothing and number is not None and outputs == number + 1)


def _replace_pool(operation: ReplaceHeadFields, surgery: Surgery) -> None:
    """Put another pool in the place of the network's own, which must have left one position."""
    sites = surgery.role("pool") if operation.at == ROLE else []
    pools = [site for site in sites if isinstance(surgery.model.get_submodule(site), POOLING)]
    if len(pools) != 1 or operation.pool == "cls":
        raise OperationError(
            f"the network pools on its way to the head, where no {operation.pool} pool can take over",
            hint="leave pool out; or let features come out with truncate, and put the head on them",
        )
    shape = surgery.shape(pools[0])
    if any(size != 1 for size in shape[2:]):
        raise OperationError(
            f"{pools[0]} leaves {shown(shape)}, more than one position, which the head reads all of",
            hint="leave pool out; or let features come out with truncate, and put the head on them",
        )
    like = neighbour(surgery.model, pools[0])
    surgery.replace(pools[0], surgery.new(Pool, operation.pool, 1, keep=len(shape) - 2, like=like))


POOLING = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d, Pool)


def _auxiliary(operation: ReplaceHeadFields, surgery: Surgery) -> None:
    sites = surgery.role("aux")
    if not sites:
        if operation.aux != "replace":
            surgery.note("there are no auxiliary heads")
        return
    if operation.aux == "replace" and operation.kind != "none":
        for site in sites:
            layer = scoring_layer(surgery.model, site)
            old = surgery.model.get_submodule(layer)
            plain = operation.model_copy(update={"kind": "linear", "hidden": [], "dropout": 0.0})
            head = _like(plain, surgery, layer, old, operation.count)
            _start(operation, surgery, head, old)
            surgery.replace(layer, head)
    elif operation.aux != "keep":
        drop_auxiliary(surgery)
    else:
        surgery.note(f"auxiliary heads stay as they are: {', '.join(sites)}")
