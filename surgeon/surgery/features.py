"""Find the features that a site produces, with their width and layout, to size new layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.edit import exit_site, site_of_tap
from surgeon.nn.grafts import TRUNK_OUTPUT, Branch, Grafted

if TYPE_CHECKING:
    from surgeon.graph.trace import Trace
    from surgeon.surgery.inspection import Inspection


CLASS_TOKENS = ("class_token", "cls_token")
CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
WIDTHS = ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim")


LOOK_BACK = 8
"""How many layers before a site to look at for its width; layers further back have other features."""


@dataclass(frozen=True)
class Features:
    """Describe the tensor that a site produces.

    Attributes:
        site: Its address.
        shape: The shape at the traced input, batch first.
        axis: The dimension of the channels: 1, or -1.
        token: The first of its tokens is a class token.
        masked: The network's forward takes an ``attention_mask`` for its positions.
    """

    site: str
    shape: tuple[int, ...]
    axis: int
    token: bool
    masked: bool

    @property
    def width(self) -> int:
        """Return the number of channels."""
        return self.shape[self.axis]

    @property
    def dims(self) -> int:
        """Return the number of dimensions besides batch and channels."""
        return len(self.shape) - 2


def features_at(surgery: Inspection, site: str) -> Features:
    """Describe the features that ``site`` produces.

    Raises:
        OperationError: It does not produce a tensor with a batch and channels.
    """
    return _features(surgery, "features", site, lambda: _describe(surgery, site, None))


def features_of_head(surgery: Inspection) -> Features:
    """Describe the features that the network's current head reads, or the output of a network without a head.

    If the network's forward reshapes or pools them before the head without a module for it, they are the features of
    the last site before that.

    Raises:
        OperationError: The head has several parts, which read different features.
    """
    model = surgery.model
    end = exit_site(model)
    if end is not None:
        return features_at(surgery, end)
    branch = logits_branch(model)
    if branch is not None:
        return features_at(surgery, tapped_site(model, branch))
    heads = surgery.role("head")
    if not heads:
        return features_of_network(surgery)
    if len(heads) > 1:
        raise OperationError(
            f"the head has several parts ({', '.join(heads)}), which read different features",
            hint="say which features are meant with at: SITE",
        )
    head = scoring_layer(model, heads[0])
    return _features(surgery, "features of head", head, lambda: _describe(surgery, *_read_by(surgery, head)))


def features_of_network(surgery: Inspection) -> Features:
    """Describe the features that a network without a head returns.

    Raises:
        OperationError: No site produces them.
    """
    end = exit_site(surgery.model)
    if end is not None:
        return features_at(surgery, end)
    return _features(surgery, "features of network", "", lambda: _describe(surgery, _last_site(surgery), None))


def logits_branch(model: nn.Module) -> Branch | None:
    """Get the branch that an earlier replace_head added, or None."""
    if isinstance(model, Grafted) and TRUNK_OUTPUT in model.grafts:
        branch = model.grafts[TRUNK_OUTPUT]
        return branch if isinstance(branch, Branch) else None
    return None


def tapped_site(model: nn.Module, branch: Branch) -> str:
    """Get the site that a branch reads."""
    site = site_of_tap(model, branch.tap)
    if site is None:
        raise OperationError("a branch reads a site that was removed")
    return site


def scoring_layer(model: nn.Module, site: str) -> str:
    """Find the layer at or below ``site`` that computes the scores.

    Raises:
        OperationError: ``site`` neither is nor contains a linear layer, convolution or identity.
    """
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.modules.conv._ConvNd, nn.Identity)
    module = model.get_submodule(site)
    if isinstance(module, kinds):
        return site
    layers: list[str] = [name for name, inner in module.named_modules(prefix=site) if isinstance(inner, kinds[:2])]
    if not layers:
        raise OperationError(
            f"{site or '.'} is a {type(module).__name__} without a linear layer or convolution to replace",
            hint="name the layer that computes the scores; surgeon inspect shows the sites",
        )
    return layers[-1]


def neighbour(model: nn.Module, site: str) -> nn.Module:
    """Get the module whose dtype a layer that reads ``site`` should have: the site itself, or a parent of it."""
    while site and not any(p.is_floating_point() for p in model.get_submodule(site).parameters()):
        site = site.rpartition(".")[0]
    return model.get_submodule(site)


def choose_pool(features: Features, pool: str, *, dense: bool = False) -> str:
    """Choose the pooling for ``features``; ``auto`` becomes the usual one for their layout.

    Raises:
        OperationError: There are no positions to pool, or no class token.
    """
    if features.dims == 0:
        if pool not in ("auto", "none"):
            raise OperationError(
                f"{features.site or '.'} produces {shown(features.shape)}, which has no positions left to pool",
                hint="leave pool out, or name an earlier site",
            )
        return "none"
    if pool == "auto":
        return "none" if dense else "cls" if features.token else "mean" if features.dims == 1 else "avg"
    if pool == "cls" and (features.dims != 1 or dense):
        raise OperationError(f"{features.site or '.'} produces {shown(features.shape)}: no class token among them")
    return pool


def shown(shape: Iterable[int]) -> str:
    """Format a shape for messages, with ``batch`` in the place of its first number."""
    _, *rest = shape
    return f"({', '.join(['batch', *map(str, rest)])})"


def _features(surgery: Inspection, kind: str, site: str, answer: Callable[[], dict[str, Any]]) -> Features:
    fields = surgery.recall(kind, answer, subject=site)
    return Features(**{**fields, "shape": tuple(fields["shape"])})


def _describe(surgery: Inspection, site: str, width: int | None) -> dict[str, Any]:
    traced, model = surgery.trace(), surgery.model
    shape = traced.shape(site)
    if len(shape) < 2:
        raise OperationError(f"{site or '.'} produces {list(shape)}, which lacks a batch or channels")
    axis = _channel_axis(model, traced, site, shape, width)
    token = axis == -1 and len(shape) == 3 and _has_class_token(model, traced, site, shape)
    return {**asdict(Features(site, shape, axis, token, _masked(model, site, shape))), "shape": list(shape)}


def _read_by(surgery: Inspection, head: str) -> tuple[str, int | None]:
    """Find the site whose features ``head`` reads, and the width that it reads.

    Take the last site before the head that has this width. If it is a container (a transformers trunk of whose tokens
    the head reads only some), prefer a site in it that produces exactly the head's input.
    """
    traced, module = surgery.trace(), surgery.model.get_submodule(head)
    width = getattr(module, "in_features", None) or getattr(module, "in_channels", None)
    shape = traced.shape(head)
    expected = (*shape[:-1], module.in_features) if isinstance(module, nn.Linear) else shape
    start, suited = traced.visits[head].started, ""
    for site in reversed(traced.order):
        produced = _shape(traced, site)
        if produced is None or _grafted(site) or traced.visits[site].finished[-1] > start:
            continue
        if suited and not site.startswith(f"{suited}."):
            break
        if not isinstance(module, nn.modules.conv._ConvNd) and _squeezed(produced) == _squeezed(expected):
            return site, width
        if not suited and len(produced) > 1 and width in (None, produced[1], produced[-1]):
            suited = site
    if not suited:
        raise OperationError(
            f"no site before {head} produces features that are {width} wide",
            hint="say which features are meant with at: SITE",
        )
    return suited, width


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the ones at the end of a shape, which pooling leaves."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _shape(traced: Trace, site: str) -> tuple[int, ...] | None:
    try:
        return traced.shape(site)
    except OperationError:
        return None


def _last_site(surgery: Inspection) -> str:
    """Find the outermost site that produced the network's output; failing that, the last site that ran."""
    traced = surgery.trace()
    out = traced.outputs.get("last_hidden_state") or next(iter(traced.outputs.values()), None)
    sites = [site for site in traced.order if site and not _grafted(site) and traced.features(site)]
    same = [site for site in sites if _shape(traced, site) == out]
    if not sites:
        raise OperationError(f"{type(surgery.model).__name__} runs no module whose features could be read")
    return (same or sites)[-1]


def _channel_axis(model: nn.Module, traced: Trace, site: str, shape: tuple[int, ...], width: int | None) -> int:
    """Find the channel dimension, 1 or -1, from the widths of the layers before; see the layouts in :class:`Pool`."""
    default = -1 if len(shape) <= 3 else 1
    if len(shape) == 2 or shape[1] == shape[-1]:
        near = next(_layers_before(model, traced, site), None)
        return 1 if len(shape) == 3 and isinstance(near, CHANNELS_FIRST) else default
    if width is not None:
        return _axis_of(shape, width, default)
    layers = _layers_before(model, traced, site)
    for _, layer in zip(range(LOOK_BACK), layers, strict=False):
        channels = _width(layer)
        if channels in (shape[1], shape[-1]):
            axis = _axis_of(shape, channels, default)
            if len(shape) == 3 or axis == 1 or not isinstance(layer, CHANNELS_FIRST):
                return axis
    return default


def _axis_of(shape: tuple[int, ...], width: int, default: int) -> int:
    if shape[1] == width:
        return 1
    return -1 if shape[-1] == width else default


def _layers_before(model: nn.Module, traced: Trace, site: str) -> Iterator[nn.Module]:
    """Yield the layers with a width that had run when ``site`` finished, the latest first."""
    end = traced.visits[site].finished[-1]
    for name in reversed(traced.order):
        if traced.visits[name].finished[-1] <= end and not _grafted(name):
            module = model.get_submodule(name)
            if _width(module) is not None:
                yield module


def _width(module: nn.Module) -> int | None:
    shape = getattr(module, "normalized_shape", None)
    if shape is None and type(module).__name__.endswith("RMSNorm"):
        shape = getattr(getattr(module, "weight", None), "shape", None)
    if shape:
        return int(shape[-1]) if isinstance(shape, Sequence) else int(shape)
    widths = (getattr(module, name, None) for name in WIDTHS)
    return next((width for width in widths if isinstance(width, int)), None)


def _has_class_token(model: nn.Module, traced: Trace, site: str, shape: tuple[int, ...]) -> bool:
    """Return whether these tokens begin with the class token.

    Without one, there are as many tokens as positions in an earlier feature map.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    if names.isdisjoint(CLASS_TOKENS):
        return False
    end = traced.visits[site].finished[-1]
    before = (_shape(traced, name) for name in traced.order if traced.visits[name].finished[-1] <= end)
    return not any(prod(earlier[2:]) == shape[1] for earlier in before if earlier and len(earlier) > 3)


def _masked(model: nn.Module, site: str, shape: tuple[int, ...]) -> bool:
    """Return whether the network's forward takes an ``attention_mask`` for these positions."""
    return len(shape) == 3 and _takes_mask(model) and not _decodes(model, site)


def _takes_mask(model: nn.Module) -> bool:
    if isinstance(model, Grafted):
        return model.mask_position is not None
    return "attention_mask" in inspect.signature(model.forward).parameters


def _decodes(model: nn.Module, site: str) -> bool:
    """Return whether a site is in the decoder of an encoder-decoder, whose attention_mask is for the encoder."""
    config = getattr(model, "config", None)
    return bool(getattr(config, "is_encoder_decoder", False)) and "encoder" not in site.split(".")


def _grafted(site: str) -> bool:
    return site == "exit" or site.split(".")[0] == "grafts"
