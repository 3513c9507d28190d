"""Declare arguments of transformers' forwards whose shapes depend on each other: one row per group of names."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace
from functools import partial
from typing import Any

from surgeon.families.expressions import specs_of
from surgeon.families.inputs import Spec
from surgeon.families.transformers.arguments import BY_NAME, choices, words
from surgeon.families.transformers.quantities import quantities_of
from surgeon.interfaces.family import Argument

Choices = dict[str, list[Spec]]

_whole = partial(Argument, dtype="int64")
_sides = partial(Argument, dtype="int64", low="grid", high="grid+1")
_mask = partial(Argument, dtype="int64", low="1")

IMAGE = "num_channels|in_channels|3 height width"
PATCH = "num_channels|3*patch_side|16*patch_side|16"
POOLED = "grid*pooling_kernel_size|1"
QUERIES = "latent_query_num|64"

_ROBOT = (
    Argument("pixel_values", f"batch 1 {IMAGE}"),
    Argument("pixel_attention_mask", "batch 1", dtype="bool", low="1"),
    words("input_ids", "batch patch_count+tokens", first="image_token patch_count"),
    _mask("attention_mask", "batch patch_count+tokens"),
    Argument("state", "batch max_state_dim|32"),
    Argument("noise", "batch chunk_size|tokens max_action_dim|32"),
    Argument("timestep", "batch"),
    Argument("action_embeds", "batch chunk_size|tokens+1 dit_width"),
)
"""π0: one camera image, an instruction, the robot's state, and noise that becomes actions."""

GROUPS: tuple[tuple[str, tuple[Argument, ...]], ...] = (
    (  # padded rows of patches, with the height and width of each image in patches (Siglip 2)
        "pixel_values spatial_shapes",
        (
            Argument("pixel_values", f"batch grid*grid {PATCH}"),
            _mask("pixel_attention_mask", "batch grid*grid"),
            _sides("spatial_shapes", "batch 2"),
        ),
    ),
    (  # patches with their columns and rows, pooled in squares (Gemma 4)
        "pixel_values pixel_position_ids",
        (
            Argument("pixel_values", f"batch {POOLED}*{POOLED} {PATCH}"),
            _whole("pixel_position_ids", f"batch {POOLED}*{POOLED} 2", high=POOLED),
        ),
    ),
    (  # the patches of all images in one row, with the height and width of each image in patches (MiniCPM-V)
        "pixel_values target_sizes",
        (
            Argument("pixel_values", "1 num_channels|3 patch_side|16 patch_side|16*batch*grid*grid"),
            _sides("target_sizes", "batch 2"),
        ),
    ),
    (  # a mask over the tokens marks where image features go (Kosmos-2)
        "pixel_values input_ids image_embeds_position_mask",
        (
            Argument("pixel_values", f"batch {IMAGE}"),
            words("input_ids", f"batch {QUERIES}+tokens"),
            _whole("image_embeds_position_mask", f"batch {QUERIES}+tokens", high="1", first=f"1 {QUERIES}"),
        ),
    ),
    (  # images per text, with a mask of which token attends to which image (Idefics)
        "pixel_values image_attention_mask perceiver_embeddings",
        (
            Argument("pixel_values", f"batch 1 {IMAGE}"),
            _mask("image_attention_mask", "batch tokens 1"),
            _mask("attention_mask", "batch tokens"),
        ),
    ),
    ("state pixel_values pixel_attention_mask", _ROBOT),
    ("action_embeds pixel_values pixel_attention_mask", _ROBOT),
    (  # an image and its prompt, stacked to one image of the declared size (SegGPT)
        "pixel_values prompt_pixel_values",
        tuple(
            Argument(name, "batch num_channels|in_channels|3 height//2 width")
            for name in ("pixel_values", "prompt_pixel_values", "prompt_masks")
        ),
    ),
    (  # a waveform and the spectrogram with as many frames as its encoder makes (X-Codec 2)
        "input_values input_features",
        (
            Argument("input_values", "batch 1 downsampling*heard_frames"),
            Argument("input_values", "batch downsampling*heard_frames"),
            Argument(
                "input_features",
                "batch heard_frames feature_projection_input_dim|num_mel_bins|80",
                where="downsampling|0",
            ),
            *(replace(argument, where="plain_rate") for argument in BY_NAME["input_features"]),
        ),
    ),
    (
        "input_values pixel_values_videos",
        (Argument("input_values", "batch 1 samples"), Argument("pixel_values_videos", f"batch 2 {IMAGE}")),
    ),
)
"""The arguments that a forward must have for a group to apply, and the specs of that group."""


def grouped(names: Set[str], config: Any, batch: int) -> Choices:
    """Return specs for those of ``names`` whose shapes depend on each other."""
    lookup = quantities_of(config, batch)
    specs_by_name: Choices = {}
    for group, arguments in GROUPS:
        if names >= set(group.split()):
            for name in dict.fromkeys(argument.name for argument in arguments if argument.name in names):
                specs = specs_of([argument for argument in arguments if argument.name == name], lookup)
                if specs:
                    specs_by_name[name] = specs
    return specs_by_name


def patches_in_rows(names: Set[str], config: Any, batch: int) -> Choices:
    """Return all combinations of a layout of patches with a layout of their counts per image."""
    grids = [name for name in ("grid_thw", "image_grid_thw") if name in names]
    if not grids or "pixel_values" not in names:
        return {}
    patches = choices("hidden_states", config, batch)
    pairs = list(_pairs(patches, choices(grids[0], config, batch)))
    return {"pixel_values": [patch for patch, _ in pairs], grids[0]: [grid for _, grid in pairs]}


def _pairs(firsts: list[Spec], seconds: list[Spec]) -> Iterator[tuple[Spec, Spec]]:
    for second in seconds:
        for first in firsts:
            yield first, second
