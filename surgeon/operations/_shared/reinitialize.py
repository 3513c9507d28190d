"""Draw existing tensors again: as the architecture initialises them, else as each layer does."""

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
"""What PyTorch's layers call their own initialisation."""


def drawn_by(surgery: Surgery, architecture: Architecture | None) -> dict[str, torch.Tensor]:
    """Make the tensors that ``architecture`` initialises, by name, without values; none if it is not known."""
    return dict(tensors_of(surgery.new(surgery.build, architecture))) if architecture else {}


def redraw(
    surgery: Surgery, root: nn.Module, built: Mapping[str, torch.Tensor], only: Collection[str] | None = None
) -> list[str]:
    """Draw tensors of ``root`` again when the weights flow in.

    Args:
        surgery: Records where the values come from.
        root: The module that holds the tensors.
        built: The tensors of the same tree as its architecture initialises it, as far as that is known. A tensor
            that has another name or shape there (a new head) is drawn by its layer's own initialisation.
        only: The names of the tensors; all if left out.

    Returns:
        The names of tensors that neither initialises; they stay as they are.
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
    """Remove the hooks that connect a copied tree with modules outside it."""
    inside = {id(module) for module in root.modules()}
    for module in root.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                owner = getattr(hook, "__self__", None)
                if isinstance(owner, nn.Module) and id(owner) not in inside:
                    del hooks[key]
    return root


def _resettable(root: nn.Module, name: str, tensor: torch.Tensor) -> str | None:
    """The topmost module that initialises the tensor ``name``: its owner, or what holds that and so its parts.

    Of buffers only statistics are initialised; others (a table of positions) are constants.
    """
    if not isinstance(tensor, nn.Parameter):
        owner = name.rpartition(".")[0]
        return owner if hasattr(root.get_submodule(owner), "reset_running_stats") else None
    found, site = None, name
    while site:
        site = site.rpartition(".")[0]
        if any(hasattr(root.get_submodule(site), reset) for reset in RESETS):
            found = site
    return found


def _alone(layer: nn.Module) -> nn.Module:
    """A skeleton of one layer."""
    return disconnect(skeleton_of(layer))


def _reset(skeleton: nn.Module) -> nn.Module:
    """The same layer with real tensors, as it initialises itself: what holds others after its parts, as when built.

    Raises:
        OperationError: It leaves a parameter without values.
    """
    layer = copy.deepcopy(skeleton).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(float("nan")) if parameter.is_floating_point() else parameter.zero_()
    for module in reversed(list(layer.modules())):
        for reset in RESETS:
            if hasattr(module, reset):
                getattr(module, reset)()
    left = [name for name, p in layer.named_parameters() if p.is_floating_point() and p.isnan().any()]
    if left:
        raise OperationError(
            f"{type(layer).__name__} leaves {', '.join(left[:3])} as it is when it initialises itself",
            hint="leave that out: !SITE, or say what built the network (--arch)",
        )
    return layer
