"""What a transformers forward takes under each name: shapes and kinds of values, from the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from surgeon.families.inputs import Spec

TOKENS = 8
SAMPLES = 8000
"""Half a second of sound at 16 kHz."""
FRAMES = 64
"""Frames of a spectrogram, where a config does not say."""
GRID = 4
"""The rows and columns of an image's patches, where a forward is told them: a multiple of what it merges."""


def choices(name: str, config: Any, batch: int) -> list[Spec]:
    """What may be fed under ``name``, the likeliest first; nothing where the config does not tell."""
    shapes = _BY_NAME.get(name)
    return shapes(config, batch) if shapes else []


def setting(config: Any, *names: str, default: Any = None) -> Any:
    """The first of several settings that the config, or one of the configs in it, has."""
    parts = [getattr(config, part, None) for part in getattr(config, "sub_configs", {})]
    for holder in [config, *parts]:
        for name in names:
            value = getattr(holder, name, None)
            if value is not None:
                return value
    return default


def _text(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _tokens(config: Any, batch: int) -> list[Spec]:
    """Words that end with the end-of-sentence token, and hold no other token with a meaning of its own."""
    text = _text(config)
    if hasattr(config, "decoder_config") and hasattr(getattr(config, "encoder_config", None), "vocab_size"):
        text = config.encoder_config
    words = setting(text, "vocab_size") or setting(config, "vocab_size", default=2)
    words = min(words) if isinstance(words, (list, tuple)) else words
    special = sorted(_special_tokens(config, words) | _special_tokens(text, words))
    low, high = max(pairwise([-1, *special, words]), key=lambda gap: gap[1] - gap[0])
    end = setting(text, "eos_token_id")
    last = end if isinstance(end, int) and 0 <= end < words else None
    low, high = (low + 1, high) if high > low + 1 else (0, words)
    rows = Spec((batch, TOKENS), torch.int64, low, high, last=last)
    return [rows, *(replace(rows, shape=shape) for shape in _codes(config, batch))]


def _codes(config: Any, batch: int) -> list[tuple[int, ...]]:
    """Sound in tokens of several codebooks: a row for each, or one beside the other, the words before them."""
    books = setting(config, "num_codebooks")
    if not isinstance(books, int) or books < 2:
        return []
    return [(batch * books, TOKENS), (batch, TOKENS, books), (batch, TOKENS, books + 1)]


def _special_tokens(config: Any, words: int) -> set[int]:
    """The numbers of the tokens that a config gives a name: the end of a sentence, a place for an image."""
    named = [v for k, v in vars(config).items() if k.endswith(("_token_id", "_token_index"))]
    return {value for value in named if type(value) is int and 0 <= value < words}


def _decoder_tokens(config: Any, batch: int) -> list[Spec]:
    decoder = getattr(config, "decoder", None) or getattr(config, "decoder_config", None) or _text(config)
    found = _tokens(decoder if hasattr(decoder, "to_dict") else config, batch)
    channels = getattr(decoder, "num_channels", None)  # of sound in tokens
    codes = [replace(found[0], shape=(batch, TOKENS, channels))] if isinstance(channels, int) else []
    return [*found, *codes]


def image_side(config: Any) -> tuple[int, int]:
    """The height and width of images; of timm's networks, those that their own settings tell."""
    size = setting(config, "image_size", "img_size", "input_size", "max_img_size")
    if ratios := setting(config, "scaled_images_ratios"):  # the smallest copy is to hold one patch
        size = int(setting(config, "patch_size", default=size) / min(ratios))
    if size is None:
        timm = [setting(config, name, default={}) for name in ("model_args", "pretrained_cfg")]
        size = timm[0].get("img_size") or timm[1].get("input_size", [224])[-2:]
    if isinstance(size, dict):
        size = list(size.values())
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _images(config: Any, batch: int) -> list[Spec]:
    channels = setting(config, "num_channels", "in_channels", "in_chans", default=3)
    image = (channels, *image_side(config))
    frames = setting(config, "num_frames", "frames_per_clip")
    clips = [Spec((batch, frames, *image))] if isinstance(frames, int) else []
    sides = [Spec((batch, *image)), Spec((batch, channels, 64, 64)), Spec((batch, channels, 256, 256))]
    # two frames of a clip, or two views to match
    return [*clips, *sides, Spec((batch, 2, channels, 64, 64)), Spec((batch, 2, *image))]


def _waveforms(config: Any, batch: int) -> list[Spec]:
    bins, length = setting(config, "num_mel_bins"), setting(config, "max_length")
    if isinstance(bins, int) and setting(config, "patch_size") is not None:  # a spectrogram cut into patches
        return [Spec((batch, length or 1024, bins))]
    found = [Spec((batch, SAMPLES)), Spec((batch, 1, SAMPLES)), Spec((batch, FRAMES, bins or 80))]
    # whole frames of 80 ms at 24 kHz; what an encoder makes of sound, where that is another class's work
    return [*found, Spec((batch, 4 * 1920)), *_queries(config, batch)]


def _spectrograms(config: Any, batch: int) -> list[Spec]:
    return [spec for spec, _ in _heard(config, batch)]


def _heard(config: Any, batch: int) -> list[tuple[Spec, int]]:
    """Spectrograms of all kinds, and how many frames each has."""
    bins = setting(
        config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_feat_size",
        "input_dim", default=80,
    )  # fmt: skip
    bins *= setting(config, "num_stacked_frames", default=1)
    positions, window = setting(config, "max_source_positions"), setting(config, "n_window")
    mel_first = [2 * n for n in (positions, window) if isinstance(n, int)]
    frame_first = list(dict.fromkeys([bins, 128, 4 * bins]))  # two frames side by side, and how they change
    return [
        *((Spec((batch, bins, frames)), frames) for frames in mel_first),
        (Spec((batch, FRAMES, bins)), FRAMES),
        (Spec((batch, bins, FRAMES)), FRAMES),
        (Spec((batch, 1, 1001, bins)), 1001),
        *((Spec((batch, FRAMES, width)), FRAMES) for width in frame_first[1:]),
    ]


def _boxes(config: Any, batch: int) -> list[Spec]:
    """Corners of words on a page, whole numbers; Bros takes eight real ones."""
    sides = setting(config, "dim_bbox")
    return [Spec((batch, TOKENS, sides))] if isinstance(sides, int) else [Spec((batch, TOKENS, 4), torch.int64, high=2)]


def _series(config: Any, batch: int) -> list[Spec]:
    channels = setting(config, "num_input_channels", "input_size", default=1)
    length = _past(config)
    if setting(config, "lags_sequence") is not None and channels == 1:
        return [Spec((batch, length))]
    return [Spec((batch, length, channels)), Spec((batch, length))]


def _patches(config: Any, batch: int) -> list[Spec]:
    """The patches of a batch of images, flattened, one after the other: what the Qwen-VL towers take."""
    side = setting(config, "patch_size", default=14)
    side = side[0] if isinstance(side, (list, tuple)) else side
    channels = setting(config, "in_channels", "in_chans", "num_channels", default=3)
    steps = setting(config, "temporal_patch_size", "patch_temporal", default=1)
    count = batch * GRID**2
    width = channels * side * side
    sound = [] if setting(config, "patch_size") else [Spec((batch, 1, SAMPLES)), *_latents(config, batch)]
    merged = setting(config, "spatial_merge_size", default=2)
    square = (merged * side, merged * side, channels)  # of the patches that become one, and are counted as one
    rows = [Spec((count, width * steps)), Spec((count, width)), Spec((count, channels, side, side))]
    return [*sound, *rows, Spec((count, *square))]


def _grid(config: Any, batch: int) -> list[Spec]:
    """How many patches each image has: in time, where that is told (an image has one), and in height and width."""
    return [Spec((batch, 3), torch.int64, GRID, GRID + 1, first=(1, 1)), Spec((batch, 2), torch.int64, GRID, GRID + 1)]


def _visual(attribute: str) -> Callable[[Any, int], list[Spec]]:
    """What was seen of the regions of an image, or where they are: four corners if the config does not say."""
    return lambda config, batch: [Spec((batch, TOKENS, setting(config, attribute, default=4)))]


def _queries(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, TOKENS, setting(config, "hidden_size", "d_model", default=64)))]


def _query_tokens(config: Any, batch: int) -> list[Spec]:
    words = setting(getattr(config, "qformer_config", config), "vocab_size", default=2)
    return [Spec((batch, TOKENS), torch.int64, high=words)]


def _spoken(config: Any, batch: int) -> list[Spec]:
    """Frames of a spectrogram to go on from; or what a layer before the network makes of them."""
    return [Spec((batch, TOKENS, setting(config, "num_mel_bins", default=80))), *_queries(config, batch)]


def _across(config: Any, batch: int) -> list[Spec]:
    """What an encoder made of something, to look across at, where the config tells how wide that is."""
    width = setting(config, "encoder_hidden_size")
    return [Spec((batch, TOKENS, width))] if isinstance(width, int) else []


def _drafted(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, setting(config, "block_size", default=TOKENS), setting(config, "hidden_size", default=64)))]


def _overheard(config: Any, batch: int) -> list[Spec]:
    """What several layers of another network said, side by side."""
    layers = setting(config, "target_layer_ids", default=[0])
    return [Spec((batch, TOKENS, setting(config, "hidden_size", default=64) * len(layers)))]


def _latents(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, setting(config, "hidden_size", default=64), TOKENS))]


def _frame_mask(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, frames), torch.int64, low=1) for _, frames in _heard(config, batch)]


def _steps(attribute: str) -> Callable[[Any, int], list[Spec]]:
    """A row of a decision's past: what the config calls ``attribute`` wide, or one number."""
    return lambda config, batch: [Spec((batch, TOKENS, setting(config, attribute, default=1)))]


def _past(config: Any) -> int:
    """How far back a forecast looks: its context and its longest lag."""
    lags = setting(config, "lags_sequence", default=[0])
    return int(setting(config, "context_length", "prediction_length", default=64)) + int(max(lags))


def _time_features(length: Callable[[Any], int]) -> Callable[[Any, int], list[Spec]]:
    return lambda config, batch: [Spec((batch, length(config), setting(config, "num_time_features", default=0)))]


def _ahead(config: Any) -> int:
    return int(setting(config, "prediction_length", default=8))


def _words_left(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, TOKENS), torch.int64, low=1)]


_BY_NAME: dict[str, Callable[[Any, int], list[Spec]]] = {
    "audio_mel": lambda config, batch: [Spec((batch, FRAMES, setting(config, "input_feat_size", default=80)))],
    "audio_mel_mask": lambda config, batch: [Spec((batch, FRAMES), torch.bool, high=1)],  # what is padding
    "classes_attention_mask": _words_left,
    "classes_structure": lambda config, batch: [Spec((batch,), torch.int64, low=1)],
    "context_hidden_states": _overheard,
    "decoder_input_values": _spoken,
    "encoder_hidden_states": _across,
    "merge_sizes": lambda config, batch: [Spec((batch,), torch.int64, low=2, high=3)],
    "noise_embeds": _drafted,
    "tasks_attention_mask": _words_left,
    "tasks_input_ids": _tokens,
    "actions": _steps("act_dim"),
    "classes_input_ids": _tokens,
    "freq": lambda config, batch: [Spec((batch, 1), torch.int64, high=1)],
    "future_time_features": _time_features(_ahead),
    "future_values": lambda config, batch: [Spec((batch, _ahead(config)))],
    "grid_thw": _grid,
    "hidden_states": _patches,
    "image_grid_thw": _grid,
    "input_features_mask": _frame_mask,
    "inputs_embeds": _queries,
    "prompt_masks": _images,
    "prompt_pixel_values": _images,
    "visual_feats": _visual("visual_feat_dim"),
    "visual_pos": _visual("visual_pos_dim"),
    "inputs": lambda config, batch: [*_queries(config, batch), *_tokens(config, batch)],
    "latents": _latents,
    "past_observed_mask": lambda config, batch: [Spec((batch, _past(config)), torch.int64, low=1)],
    "past_values_padding": lambda config, batch: [Spec((batch, _past(config)), torch.int64, high=1)],
    "past_time_features": _time_features(_past),
    "qformer_input_ids": _query_tokens,
    "query_embeds": _queries,
    "returns_to_go": _steps("reward_dim"),
    "rewards": _steps("reward_dim"),
    "states": _steps("state_dim"),
    "task_inputs": lambda config, batch: [
        Spec((batch, setting(config, "task_seq_len", default=77)), torch.int64, high=2)
    ],
    "timesteps": lambda config, batch: [Spec((batch, TOKENS), torch.int64, high=TOKENS)],
    "input_ids": _tokens,
    "decoder_input_ids": _decoder_tokens,
    "attention_mask": _words_left,
    "token_type_ids": lambda config, batch: [Spec((batch, TOKENS), torch.int64, high=1)],
    "pixel_values": _images,
    "pixel_values_videos": _images,
    "input_values": _waveforms,
    "input_features": _spectrograms,
    "bbox": _boxes,
    "past_values": _series,
}
