"""Change the resolution of a network with learned position embeddings."""

from __future__ import annotations

import copy
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from surgeon.errors import OperationError
from surgeon.families.config import NetworkConfig
from surgeon.families.registry import config_of, configs_in, families_of, settings_of
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import tensors_of
from surgeon.operations.adapt_input.channels import refuse_shared_input

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


def adapt_resolution(surgery: Surgery, side: int) -> None:
    """Adapt the network to square images of ``side`` pixels.

    Raises:
        OperationError: The network does not depend on the image size, its position embeddings cannot be interpolated,
            or the side is not a multiple of the patch size.
    """
    model = surgery.model
    refuse_shared_input(model)
    declared = [path for family in families_of(model, surgery.families) for path in family.positions]
    if declared:
        _adapt_declared(surgery, declared, side)
    elif any(config.image_size is not None for config in _configs(surgery)):
        _adapt_transformers(surgery, side)
    else:
        raise OperationError(
            f"{type(model).__name__} does not depend on the size of its images, so there is nothing to adapt",
            hint="leave image_size out, and feed it images of the new size",
        )


def _configs(surgery: Surgery) -> list[NetworkConfig]:
    """List every config in the network, with those of its parts."""
    return [part for config, _ in configs_in(surgery.model, surgery.families) for part in config.with_parts()]


def resized_positions(positions: torch.Tensor, *, count: int) -> torch.Tensor:
    """Interpolate position embeddings ``(…, tokens, width)`` of a square grid to ``count`` tokens.

    Bicubic, as in ViT's paper and in transformers' ``interpolate_pos_encoding``. The embeddings of tokens before the
    grid (a class token) are kept: as many as leave a square number in both counts.
    """
    before = prefix_tokens(positions.shape[-2], count)
    assert before is not None  # checked by the caller
    grids = isqrt(positions.shape[-2] - before), isqrt(count - before)
    wide = positions.float().reshape(-1, positions.shape[-2], positions.shape[-1])
    patches = wide[:, before:].reshape(len(wide), grids[0], grids[0], -1).permute(0, 3, 1, 2)
    patches = functional.interpolate(patches, size=(grids[1], grids[1]), mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).reshape(len(wide), grids[1] ** 2, -1)
    resized = torch.cat([wide[:, :before], patches], 1)
    return resized.reshape(*positions.shape[:-2], count, positions.shape[-1])


def prefix_tokens(old: int, new: int) -> int | None:
    """Find how many tokens (0, 1 or 2) come before a square grid in both counts of tokens; None if none fits."""
    squares = (n for n in range(3) if _is_square(old - n) and _is_square(new - n))
    return next(squares, None)


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number


def _adapt_declared(surgery: Surgery, paths: list[str], side: int) -> None:
    """Interpolate the position embeddings that a family declares, and set the new size in its settings."""
    holders = [settings_of(surgery.model, surgery.families), *_configs(surgery)]
    sized = [holder for holder in holders if holder.image_size is not None]
    if not sized:
        raise OperationError(
            f"the family of {type(surgery.model).__name__} declares no field for the size of images",
            hint="declare image_size in its ConfigFields",
        )
    if all(holder.image_size == side for holder in sized):
        raise OperationError(f"it takes images of {side} pixels already", hint="leave image_size out")
    old_side, patch = sized[0].image_size, next((h.patch_size for h in sized if h.patch_size), None)
    if old_side is None or patch is None:
        raise OperationError(
            f"the family of {type(surgery.model).__name__} declares no field for the size of patches",
            hint="declare patch_size in its ConfigFields",
        )
    for holder in sized:
        holder.set_image_size(side)
    for path in paths:
        site, _, name = path.rpartition(".")
        old = getattr(surgery.model.get_submodule(site), name).shape
        count = old[-2] - (old_side // patch) ** 2 + (side // patch) ** 2
        surgery.reshape(site, name, (*old[:-2], count, old[-1]), partial(resized_positions, count=count))
        for holder in holders:
            holder.set_token_count(count)
        surgery.note(f"position embeddings interpolated from {old[-2]} to {count} tokens")


def _adapt_transformers(surgery: Surgery, side: int) -> None:
    """Build the network's class for the new size, and copy the shapes and settings that differ."""
    model = surgery.model
    built = _rebuilt(surgery, side)
    old, new = dict(tensors_of(model)), dict(tensors_of(built))
    differing = [name for name in old if name in new and new[name].shape != old[name].shape]
    for name in differing:
        shapes = old[name].shape, new[name].shape
        if len(shapes[0]) < 2 or shapes[0][-1] != shapes[1][-1] or prefix_tokens(shapes[0][-2], shapes[1][-2]) is None:
            raise OperationError(
                f"{name} would change from {list(shapes[0])} to {list(shapes[1])}, and is not a grid of positions "
                "that can be interpolated",
                hint="choose a size whose patches make a square, or leave image_size out",
            )
    for name in differing:
        site, _, key = name.rpartition(".")
        count = new[name].shape[-2]
        before = old[name].shape[-2]
        surgery.reshape(site, key, tuple(new[name].shape), partial(resized_positions, count=count))
        surgery.note(f"{name} interpolated from {before} to {count} tokens")
    if not differing:
        surgery.note("no position embeddings depend on the size of the image")
    _take_over(model, built)
    for config in _configs(surgery):
        if config.image_size is not None:
            config.set_image_size(side)
    surgery.recall("outputs at image size", lambda: {n: list(s) for n, s in surgery.trace().outputs.items()})


def _rebuilt(surgery: Surgery, side: int) -> nn.Module:
    """Build the network's class from its config for another size."""
    model = surgery.model
    cls: Any = next((c for c in type(model).__mro__ if c.__module__.startswith("transformers.")), None)
    original = config_of(model, surgery.families)
    if cls is None or original is None:
        raise OperationError(
            f"{type(model).__name__} is not a network of transformers, and no family declares its position embeddings",
            hint="adapt the model before it becomes a part of another, or let a plugin declare positions in a Family",
        )
    config = NetworkConfig(copy.deepcopy(original.config), original.fields)
    sized = [part for part in config.with_parts() if part.image_size is not None]
    if all(part.image_size == side for part in sized):
        raise OperationError(f"it takes images of {side} pixels already", hint="leave image_size out")
    for part in sized:
        part.set_image_size(side)
    return build_skeleton(lambda: cls(config.config))


def _take_over(model: nn.Module, built: nn.Module) -> None:
    """Copy integer settings and computed tables (a count of patches, position ids) from ``built`` to ``model``."""
    modules = dict(model.named_modules())
    for name, twin in built.named_modules():
        module = modules.get(name)
        if module is None:
            continue
        for key, value in vars(twin).items():
            if not key.startswith("_") and key != "training" and _is_plain(value) and vars(module).get(key) != value:
                setattr(module, key, value)
        for key in twin._non_persistent_buffers_set & module._non_persistent_buffers_set:
            old, new = module._buffers[key], twin._buffers[key]
            if old is not None and new is not None and old.shape != new.shape:
                module._buffers[key] = new


def _is_plain(value: Any) -> bool:
    items = value if isinstance(value, (tuple, list)) else [value]
    return all(isinstance(item, int) for item in items)
