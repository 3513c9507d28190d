"""Arguments of a transformers forward that must fit one another: shapes of several names at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from math import prod
from typing import Any

import torch

from surgeon.families.inputs import Spec
from surgeon.families.transformers.arguments import GRID, SAMPLES, TOKENS, choices, image_side, setting

Choices = dict[str, list[Spec]]


def grouped(names: Set[str], config: Any, batch: int) -> Choices:
    """What is to be fed under those of ``names`` that depend on each other; nothing under the others."""
    found: Choices = {}
    for group, shapes in _GROUPS:
        if group <= names:
            found |= {name: specs for name, specs in shapes(config, batch).items() if name in names}
    return found


def _image(config: Any) -> tuple[int, int, int]:
    return (setting(config, "num_channels", "in_channels", default=3), *image_side(config))


def _patch(config: Any) -> int:
    side = setting(config, "patch_size", default=16)
    return int(side[0] if isinstance(side, (list, tuple)) else side)


def _words(config: Any, batch: int, length: int, first: tuple[int, int] | None = None) -> Spec:
    return replace(choices("input_ids", config, batch)[0], shape=(batch, length), first=first)


def _mask(*shape: int, kind: torch.dtype = torch.int64) -> Spec:
    """Nothing left out."""
    return Spec(shape, kind, low=1)


def _padded_patches(config: Any, batch: int) -> Choices:
    """Patches of images of any shape in rows of one length, with what says how many are real (Siglip 2)."""
    width = setting(config, "num_channels", default=3) * _patch(config) ** 2
    return {
        "pixel_values": [Spec((batch, GRID * GRID, width))],
        "pixel_attention_mask": [_mask(batch, GRID * GRID)],
        "spatial_shapes": [Spec((batch, 2), torch.int64, GRID, GRID + 1)],
    }


def _placed_patches(config: Any, batch: int) -> Choices:
    """Patches with the column and row of each, which are pooled in squares (Gemma 4)."""
    side = GRID * setting(config, "pooling_kernel_size", default=1)
    width = setting(config, "num_channels", default=3) * _patch(config) ** 2
    return {
        "pixel_values": [Spec((batch, side * side, width))],
        "pixel_position_ids": [Spec((batch, side * side, 2), torch.int64, high=side)],
    }


def _strips(config: Any, batch: int) -> Choices:
    """The patches of all images in one long strip, with the rows and columns of each image (MiniCPM-V)."""
    side = _patch(config)
    channels = setting(config, "num_channels", default=3)
    return {
        "pixel_values": [Spec((1, channels, side, side * batch * GRID * GRID))],
        "target_sizes": [Spec((batch, 2), torch.int64, GRID, GRID + 1)],
    }


def _positions(config: Any, batch: int) -> Choices:
    """A mask over the words says where an image's features go (Kosmos-2)."""
    count = setting(config, "latent_query_num", default=64)
    return {
        "pixel_values": [Spec((batch, *_image(config)))],
        "input_ids": [_words(config, batch, count + TOKENS)],
        "image_embeds_position_mask": [Spec((batch, count + TOKENS), torch.int64, high=1, first=(1, count))],
    }


def _images_by_word(config: Any, batch: int) -> Choices:
    """Some images for each row of words, and which of them each word may look at (Idefics)."""
    return {
        "pixel_values": [Spec((batch, 1, *_image(config)))],
        "image_attention_mask": [_mask(batch, TOKENS, 1)],
        "attention_mask": [_mask(batch, TOKENS)],
    }


def _robot(config: Any, batch: int) -> Choices:
    """What a robot sees with one camera, what it is told, its own state, and noise to make actions of (π0)."""
    token = setting(config, "image_token_id", "image_token_index", default=0)
    side = _patch(config)
    count = prod(n // side for n in image_side(config))
    steps = setting(config, "chunk_size", default=TOKENS)
    return {
        "pixel_values": [Spec((batch, 1, *_image(config)))],
        "pixel_attention_mask": [_mask(batch, 1, kind=torch.bool)],
        "input_ids": [_words(config, batch, count + TOKENS, (token, count))],
        "attention_mask": [_mask(batch, count + TOKENS)],
        "state": [Spec((batch, setting(config, "max_state_dim", default=32)))],
        "noise": [Spec((batch, steps, setting(config, "max_action_dim", default=32)))],
        "timestep": [Spec((batch,))],
        "action_embeds": [Spec((batch, steps + 1, config.dit_config.hidden_size))],
    }


def _pair_with_prompt(config: Any, batch: int) -> Choices:
    """An image and its prompt, which are put one below the other into one of the declared size (SegGPT)."""
    channels, height, width = _image(config)
    half = Spec((batch, channels, height // 2, width))
    return {"pixel_values": [half], "prompt_pixel_values": [half], "prompt_masks": [half]}


def _heard_twice(config: Any, batch: int) -> Choices:
    """A waveform and as many frames of a spectrogram as an encoder makes of it (X-Codec 2)."""
    found = choices("input_features", config, batch)
    ratios = setting(config, "downsampling_ratios")
    if not ratios:
        return {"input_features": found}
    bins = setting(config, "feature_projection_input_dim", "num_mel_bins", default=80)
    samples = prod(ratios) * (SAMPLES // prod(ratios))
    return {
        "input_values": [Spec((batch, 1, samples)), Spec((batch, samples))],
        "input_features": [Spec((batch, samples // prod(ratios), bins))],
    }


def _heard_and_seen(config: Any, batch: int) -> Choices:
    return {
        "input_values": [Spec((batch, 1, SAMPLES))],
        "pixel_values_videos": [Spec((batch, 2, *_image(config)))],
    }


_GROUPS: tuple[tuple[frozenset[str], Callable[[Any, int], Choices]], ...] = tuple(
    (frozenset(names.split()), shapes)
    for names, shapes in {
        "pixel_values spatial_shapes": _padded_patches,
        "pixel_values pixel_position_ids": _placed_patches,
        "pixel_values target_sizes": _strips,
        "pixel_values input_ids image_embeds_position_mask": _positions,
        "pixel_values image_attention_mask perceiver_embeddings": _images_by_word,
        "state pixel_values pixel_attention_mask": _robot,
        "action_embeds pixel_values pixel_attention_mask": _robot,
        "pixel_values prompt_pixel_values": _pair_with_prompt,
        "input_values input_features": _heard_twice,
        "input_values pixel_values_videos": _heard_and_seen,
    }.items()
)


def patches_in_rows(names: Set[str], config: Any, batch: int) -> Choices:
    """Every way to write patches one after the other, with every way to say how many an image has."""
    told = [name for name in ("grid_thw", "image_grid_thw") if name in names]
    if not told or "pixel_values" not in names:
        return {}
    patches = choices("hidden_states", config, batch)
    pairs = list(_pairs(patches, choices(told[0], config, batch)))
    return {"pixel_values": [patch for patch, _ in pairs], told[0]: [grid for _, grid in pairs]}


def _pairs(ones: list[Spec], others: list[Spec]) -> Iterator[tuple[Spec, Spec]]:
    for other in others:
        for one in ones:
            yield one, other
