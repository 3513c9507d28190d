"""Change the number of input channels of a trained first convolution."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.families.registry import configs_in, settings_of
from surgeon.interfaces.composite import composite_of

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


def adapt_channels(surgery: Surgery, selector: str, channels: int, init: str) -> None:
    """Give the first convolutions ``channels`` input channels, and update everything that counts them.

    Raises:
        OperationError: A site is not a convolution over all channels, or the network does not run afterwards.
    """
    model = surgery.model
    refuse_shared_input(model)
    old = 0
    for site in surgery.select(selector):
        layer = site.module
        if not isinstance(layer, nn.modules.conv._ConvNd):
            raise OperationError(
                f"{site} is a {type(layer).__name__}, not a convolution over channels",
                hint="name the convolution that reads the images: at: SITE",
            )
        if layer.groups != 1:
            raise OperationError(f"{site} has {layer.groups} groups, so its filters do not read all channels")
        old = layer.in_channels
        if old == channels:
            raise OperationError(f"{site} already takes {channels} channels", hint="leave channels out")
        shape = (layer.weight.shape[0], channels, *layer.weight.shape[2:])
        surgery.reshape(site, "weight", shape, partial(new_filters, channels=channels, init=init))
        layer.in_channels = channels
        _recount(surgery, site.name, old, channels)
    _adapt_preparation(surgery, old, channels, init)
    surgery.recall("outputs with channels", lambda: _runs(surgery, channels))


def refuse_shared_input(model: nn.Module) -> None:
    """Check that no other part of the network receives the input that is to change.

    Raises:
        OperationError: Several parts, such as the columns of a progressive network, receive the same input.
    """
    shared = composite_of(model).shared
    if len(shared) > 1:
        raise OperationError(
            f"{', '.join(entry.site for entry in shared)} receive the same input, and only one of them would change",
            hint="put adapt_input before the operation that adds them (progressive)",
        )


def new_filters(weight: torch.Tensor, *, channels: int, init: str) -> torch.Tensor:
    """Convert filters ``(out, old, …)`` to ``(out, channels, …)``; see :class:`AdaptInput`."""
    old = weight.shape[1]
    wide = weight.float()
    if init == "repeat":
        return wide[:, [i % old for i in range(channels)]] * (old / channels)
    mean = wide.sum(1, keepdim=True) / (channels if init == "sum" else old)
    return mean.expand(-1, channels, *weight.shape[2:]).contiguous()


def _recount(surgery: Surgery, site: str, old: int, channels: int) -> None:
    """Update the number of channels in the modules around the convolution and in the configs."""
    while site:
        site = site.rpartition(".")[0]
        settings_of(surgery.model.get_submodule(site), surgery.families).set_channels(old, channels)
    for config, _ in configs_in(surgery.model, surgery.families):
        for part in config.with_parts():
            part.set_channels(old, channels)


def _adapt_preparation(surgery: Surgery, old: int, channels: int, init: str) -> None:
    """Adapt the preprocessing inside torchvision networks, which has a value for each channel."""
    model: Any = surgery.model
    if getattr(model, "transform_input", False):
        model.transform_input = False
        surgery.note("transform_input is off, because it needs three channels: normalise images to -1…1 instead")
    transform = getattr(model, "transform", None)
    for name in ("image_mean", "image_std"):
        values = getattr(transform, name, None)
        if isinstance(values, (list, tuple)) and len(values) == old:
            mean = sum(values) / old
            new = [values[i % old] if init == "repeat" else mean for i in range(channels)]
            setattr(transform, name, new)
            surgery.note(f"{name} of the transform: {', '.join(f'{value:.3g}' for value in new[:4])}")


def _runs(surgery: Surgery, channels: int) -> dict[str, list[int]]:
    try:
        return {name: list(shape) for name, shape in surgery.trace().outputs.items()}
    except OperationError as error:
        raise OperationError(
            f"the network does not run with {channels} channels: {error.message}",
            hint="name the convolution that reads the images with at: SITE, or give the inputs: inputs: "
            f"[[2, {channels}, 64, 64]]",
        ) from error
