"""Reinitialise existing tensors: as the architecture does, else as the layer's ``reset_parameters`` does."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.tensors import tensors_of

if TYPE_CHECKING:
    from surgeon.interfaces.architecture_name import Architecture
    from surgeon.surgery.context import Surgery

RESETS = ("reset_parameters", "_reset_parameters")
"""The methods in which PyTorch's layers initialise themselves."""


def drawn_by(surgery: Surgery, architecture: Architecture | None) -> dict[str, torch.Tensor]:
    """Make the tensors that ``architecture`` initialises, by name, without values; none if it is not known."""
    return dict(tensors_of(surgery.new(surgery.build, architecture))) if architecture else {}


def redraw(
    surgery: Surgery, root: nn.Module, built: Mapping[str, torch.Tensor], only: Collection[str] | None = None
) -> list[str]:
    """Reinitialise tensors of ``root`` when the network is filled.

    Args:
        surgery: Records where the values come from.
        root: The module that holds the tensors.
        built: The tensors that the architecture initialises, by name, if it is known. A tensor that is missing or has
            another shape there (a new head) is initialised by its layer.
        only: The names of the tensors. Default: all.

    Returns:
        The names of tensors that neither initialises; they are not changed.
    """
    layers: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for name, tensor in tensors_of(root):
        if only is not None and name not in only:
            continue
        drawn = built.get(name)
        if drawn is not None and drawn.shape == tensor.shape:
            surgery.copy_origin(tensor, drawn)
            continue
        layer = _resettable(root, name, tensor)
        if layer is None:
            unknown.append(name)
            continue
        layers.setdefault(layer, {})[name[len(layer) + 1 if layer else 0 :]] = tensor
    for layer, tensors in layers.items():
        surgery.draw(tensors, partial(_reset, _alone(root.get_submodule(layer))))
    return unknown


def disconnect(root: nn.Module) -> nn.Module:
    """Remove the hooks that connect a copied module with modules outside it."""
    inside = {id(module) for module in root.modules()}
    for module in root.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                owner = getattr(hook, "__self__", None)
                if isinstance(owner, nn.Module) and id(owner) not in inside:
                    del hooks[key]
    return root


def _resettable(root: nn.Module, name: str, tensor: torch.Tensor) -> str | None:
    """Find the topmost module around the tensor ``name`` that has a method to initialise it.

    Of buffers only statistics are initialised; others (a table of positions) are constants.
    """
    if not isinstance(tensor, nn.Parameter):
        owner = name.rpartition(".")[0]
        return owner if hasattr(root.get_submodule(owner), "reset_running_stats") else None
    topmost, site = None, name
    while site:
        site = site.rpartition(".")[0]
        if any(hasattr(root.get_submodule(site), reset) for reset in RESETS):
            topmost = site
    return topmost


def _alone(layer: nn.Module) -> nn.Module:
    """Copy one layer as a skeleton."""
    return disconnect(skeleton_of(layer))


def _reset(skeleton: nn.Module) -> nn.Module:
    """Make the layer with real tensors and initialise it, submodules first, as when it is built.

    Raises:
        OperationError: It does not initialise one of its parameters.
    """
    layer = copy.deepcopy(skeleton).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(float("nan")) if parameter.is_floating_point() else parameter.zero_()
    for module in reversed(list(layer.modules())):
        for reset in RESETS:
            if hasattr(module, reset):
                getattr(module, reset)()
    uninitialised = [name for name, p in layer.named_parameters() if p.is_floating_point() and p.isnan().any()]
    if uninitialised:
        raise OperationError(
            f"{type(layer).__name__} does not initialise {', '.join(uninitialised[:3])} in its reset_parameters",
            hint="exclude it: !SITE, or say what built the network (--arch)",
        )
    return layer
