"""Another resolution for a network with learned position embeddings."""

from __future__ import annotations

import copy
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from surgeon.errors import OperationError
from surgeon.graph.skeleton import build_skeleton
from surgeon.graph.tensors import tensors_of
from surgeon.operations.adapt_input.channels import configs_of, refuse_shared_input, with_parts

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


def adapt_resolution(surgery: Surgery, side: int) -> None:
    """Let the network take square images of ``side`` pixels.

    Raises:
        OperationError: It has no position embeddings that this would concern, or of a kind that cannot be
            interpolated; or the side is no multiple of its patches.
    """
    model = surgery.model
    refuse_shared_input(model)
    from torchvision.models import VisionTransformer

    if isinstance(model, VisionTransformer):
        _adapt_torchvision(surgery, model, side)
    elif any(_side_of(config) is not None for config in configs_of(model)):
        _adapt_transformers(surgery, side)
    else:
        raise OperationError(
            f"{type(model).__name__} keeps no size of its images, so there is nothing to adapt",
            hint="leave image_size out, and feed it images of the new size",
        )


def resized_positions(positions: torch.Tensor, *, count: int) -> torch.Tensor:
    """Position embeddings ``(…, tokens, width)`` of a square grid, interpolated to ``count`` tokens.

    Bicubic, as in ViT's paper and in transformers' ``interpolate_pos_encoding``. Tokens before the grid (a class
    token) keep theirs: as many as make the rest a square, in both.
    """
    before = prefix_tokens(positions.shape[-2], count)
    assert before is not None  # the caller has seen to it
    grids = isqrt(positions.shape[-2] - before), isqrt(count - before)
    wide = positions.float().reshape(-1, positions.shape[-2], positions.shape[-1])
    patches = wide[:, before:].reshape(len(wide), grids[0], grids[0], -1).permute(0, 3, 1, 2)
    patches = functional.interpolate(patches, size=(grids[1], grids[1]), mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).reshape(len(wide), grids[1] ** 2, -1)
    resized = torch.cat([wide[:, :before], patches], 1)
    return resized.reshape(*positions.shape[:-2], count, positions.shape[-1])


def prefix_tokens(old: int, new: int) -> int | None:
    """How many tokens stand before the grid in both of two counts of tokens: 0, 1 or 2; None if none fits."""
    squares = (n for n in range(3) if _is_square(old - n) and _is_square(new - n))
    return next(squares, None)


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number


def _adapt_torchvision(surgery: Surgery, model: Any, side: int) -> None:
    if side == model.image_size:
        raise OperationError(f"it takes images of {side} pixels already", hint="leave image_size out")
    _refuse_broken_patches(side, model.patch_size)
    old = model.encoder.pos_embedding.shape
    count = (side // model.patch_size) ** 2 + 1
    surgery.reshape("encoder", "pos_embedding", (1, count, old[2]), partial(resized_positions, count=count))
    model.image_size, model.seq_length = side, count
    surgery.note(f"position embeddings interpolated from {old[1]} to {count} tokens")


def _adapt_transformers(surgery: Surgery, side: int) -> None:
    """Let the class itself say what it is for the new size: build it, and take over what differs."""
    model = surgery.model
    built = _rebuilt(model, side)
    old, new = dict(tensors_of(model)), dict(tensors_of(built))
    differing = [name for name in old if name in new and new[name].shape != old[name].shape]
    for name in differing:
        shapes = old[name].shape, new[name].shape
        if len(shapes[0]) < 2 or shapes[0][-1] != shapes[1][-1] or prefix_tokens(shapes[0][-2], shapes[1][-2]) is None:
            raise OperationError(
                f"{name} would go from {list(shapes[0])} to {list(shapes[1])}, which is no grid of positions to "
                "interpolate",
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
    for each in configs_of(model):
        if _side_of(each) is not None:
            _set_side(each, side)
    surgery.recall("outputs at another resolution", lambda: {n: list(s) for n, s in surgery.trace().outputs.items()})


def _rebuilt(model: nn.Module, side: int) -> nn.Module:
    """What the network's own class builds from its config for another size."""
    cls: Any = next((c for c in type(model).__mro__ if c.__module__.startswith("transformers.")), None)
    if cls is None:
        raise OperationError(
            f"{type(model).__name__} is no network of transformers, whose parts say what another size changes",
            hint="adapt the model before it becomes a part of another",
        )
    config = copy.deepcopy(cast("Any", model).config)
    sized = [each for each in with_parts(config) if _side_of(each) is not None]
    if all(_side_of(each) == side for each in sized):
        raise OperationError(f"it takes images of {side} pixels already", hint="leave image_size out")
    for each in sized:
        if isinstance(patch := getattr(each, "patch_size", None), int):
            _refuse_broken_patches(side, patch)
        _set_side(each, side)
    return build_skeleton(lambda: cls(config))


def _side_of(config: Any) -> int | None:
    """The side of the square images that a config is made for; None where it does not say."""
    size = getattr(config, "image_size", None)
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    return size if isinstance(size, int) else None


def _set_side(config: Any, side: int) -> None:
    config.image_size = side if isinstance(config.image_size, int) else type(config.image_size)((side, side))


def _take_over(model: nn.Module, built: nn.Module) -> None:
    """The plain settings and computed tables of ``built`` (a count of patches, position ids) for ``model``."""
    modules = dict(model.named_modules())
    for name, twin in built.named_modules():
        module = modules.get(name)
        if module is None:
            continue
        for key, value in vars(twin).items():
            if not key.startswith("_") and key != "training" and _is_plain(value) and vars(module).get(key) != value:
                setattr(module, key, value)
        for key in twin._non_persistent_buffers_set & module._non_persistent_buffers_set:
            mine, theirs = module._buffers[key], twin._buffers[key]
            if mine is not None and theirs is not None and mine.shape != theirs.shape:
                module._buffers[key] = theirs


def _is_plain(value: Any) -> bool:
    items = value if isinstance(value, (tuple, list)) else [value]
    return all(isinstance(item, int) for item in items)


def _refuse_broken_patches(side: int, patch: int) -> None:
    if side % patch:
        below, above = side // patch * patch, -(-side // patch) * patch
        raise OperationError(
            f"images of {side} pixels do not divide into patches of {patch}", hint=f"take {below or above} or {above}"
        )
