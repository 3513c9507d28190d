"""Declare the arguments of transformers' forwards: shape, dtype and range by name, the likeliest first."""

from __future__ import annotations

from functools import partial
from typing import Any

from surgeon.families.expressions import specs_of
from surgeon.families.inputs import Spec
from surgeon.families.transformers.quantities import quantities_of
from surgeon.interfaces.family import Argument


def choices(name: str, config: Any, batch: int) -> list[Spec]:
    """Return the specs to try for ``name``, the likeliest first; empty if the config has too few fields."""
    return specs_of(BY_NAME.get(name, ()), quantities_of(config, batch))


_whole = partial(Argument, dtype="int64")
_mask = partial(Argument, dtype="int64", low="1")
"""A mask that masks nothing."""

CHANNELS = "num_channels|in_channels|in_chans|3"
PATCH_CHANNELS = "in_channels|in_chans|num_channels|3"
WIDTH = "hidden_size|d_model|64"
words = partial(Argument, dtype="int64", low="word_low", high="word_high", last="end")
"""Token ids without special tokens, ending with the end-of-sentence token."""
_decoder_words = partial(Argument, dtype="int64", low="decoder.word_low", high="decoder.word_high", last="decoder.end")

ARGUMENTS: tuple[Argument, ...] = (
    # text tokens; audio tokens of several codebooks, as rows or as a last dimension, with or without text
    *(
        words(name, shape)
        for name in ("input_ids", "tasks_input_ids", "classes_input_ids")
        for shape in ("batch tokens", "batch*codebooks tokens", "batch tokens codebooks", "batch tokens codebooks+1")
    ),
    _decoder_words("decoder_input_ids", "batch tokens"),
    _decoder_words("decoder_input_ids", "batch*decoder.codebooks tokens"),
    _decoder_words("decoder_input_ids", "batch tokens decoder.codebooks"),
    _decoder_words("decoder_input_ids", "batch tokens decoder.codebooks+1"),
    _decoder_words("decoder_input_ids", "batch tokens decoder_channels"),
    _whole("qformer_input_ids", "batch tokens", high="qformer.vocabulary"),
    _whole("token_type_ids", "batch tokens", high="1"),
    _mask("attention_mask", "batch tokens"),
    _mask("tasks_attention_mask", "batch tokens"),
    _mask("classes_attention_mask", "batch tokens"),
    _mask("classes_structure", "batch"),
    _whole("task_inputs", "batch task_seq_len|77"),
    # embeddings in place of tokens
    *(Argument(name, f"batch tokens {WIDTH}") for name in ("inputs_embeds", "query_embeds")),
    Argument("inputs", f"batch tokens {WIDTH}"),
    *(
        words("inputs", shape)
        for shape in ("batch tokens", "batch*codebooks tokens", "batch tokens codebooks", "batch tokens codebooks+1")
    ),
    Argument("encoder_hidden_states", "batch tokens encoder_hidden_size"),
    Argument("noise_embeds", "batch block_size|tokens hidden_size|64"),
    Argument("context_hidden_states", "batch tokens hidden_size|64*targets"),
    Argument("latents", "batch hidden_size|64 tokens"),
    # images: clips, single images of three sizes, pairs of frames or views
    *(
        Argument(name, shape)
        for name in ("pixel_values", "pixel_values_videos", "prompt_pixel_values", "prompt_masks")
        for shape in (
            f"batch num_frames|frames_per_clip {CHANNELS} height width",
            f"batch {CHANNELS} height width",
            f"batch {CHANNELS} 64 64",
            f"batch {CHANNELS} 256 256",
            f"batch 2 {CHANNELS} 64 64",
            f"batch 2 {CHANNELS} height width",
        )
    ),
    # the patches of a batch of images, one after the other: for Qwen-VL vision towers
    Argument("hidden_states", "batch 1 samples", where="uncut"),
    Argument("hidden_states", "batch hidden_size|64 tokens", where="uncut"),
    Argument(
        "hidden_states",
        f"batch*grid*grid {PATCH_CHANNELS}*patch_side|14*patch_side|14*temporal_patch_size|patch_temporal|1",
    ),
    Argument("hidden_states", f"batch*grid*grid {PATCH_CHANNELS}*patch_side|14*patch_side|14"),
    Argument("hidden_states", f"batch*grid*grid {PATCH_CHANNELS} patch_side|14 patch_side|14"),
    Argument(
        "hidden_states",
        "batch*grid*grid spatial_merge_size|2*patch_side|14 spatial_merge_size|2*patch_side|14 " + PATCH_CHANNELS,
    ),
    # patches per image: in time (1), height and width
    *(
        _whole(name, shape, low="grid", high="grid+1", first=first)
        for name in ("grid_thw", "image_grid_thw")
        for shape, first in (("batch 3", "1 1"), ("batch 2", ""))
    ),
    _whole("merge_sizes", "batch", low="2", high="3"),
    # regions of an image, tokens on a page
    Argument("visual_feats", "batch tokens visual_feat_dim|4"),
    Argument("visual_pos", "batch tokens visual_pos_dim|4"),
    Argument("bbox", "batch tokens dim_bbox"),
    _whole("bbox", "batch tokens 4"),
    # sound: waveforms, whole frames of 80 ms at 24 kHz, spectrograms, encoder features
    Argument("input_values", "batch max_length|1024 num_mel_bins", where="cuts_spectrograms"),
    Argument("input_values", "batch samples", where="hears_waves"),
    Argument("input_values", "batch 1 samples", where="hears_waves"),
    Argument("input_values", "batch frames num_mel_bins|80", where="hears_waves"),
    Argument("input_values", "batch 7680", where="hears_waves"),
    Argument("input_values", f"batch tokens {WIDTH}", where="hears_waves"),
    *(
        argument
        for shape, frames in (
            ("batch bins 2*max_source_positions", "2*max_source_positions"),
            ("batch bins 2*n_window", "2*n_window"),
            ("batch frames bins", "frames"),
            ("batch bins frames", "frames"),
            ("batch 1 1001 bins", "1001"),
            ("batch frames 128", "frames"),
            ("batch frames 4*bins", "frames"),
        )
        for argument in (Argument("input_features", shape), _mask("input_features_mask", f"batch {frames}"))
    ),
    Argument("decoder_input_values", "batch tokens num_mel_bins|80"),
    Argument("decoder_input_values", f"batch tokens {WIDTH}"),
    Argument("audio_mel", "batch frames input_feat_size|80"),
    Argument("audio_mel_mask", "batch frames", dtype="bool", high="1"),  # True marks padding
    # time series
    Argument("past_values", "batch past series", where="has_series_axis"),
    Argument("past_values", "batch past"),
    _mask("past_observed_mask", "batch past"),
    _whole("past_values_padding", "batch past", high="1"),
    Argument("past_time_features", "batch past num_time_features|0"),
    Argument("future_time_features", "batch ahead num_time_features|0"),
    Argument("future_values", "batch ahead"),
    _whole("freq", "batch 1", high="1"),
    # Decision Transformer: states, actions and rewards so far
    Argument("states", "batch tokens state_dim|1"),
    Argument("actions", "batch tokens act_dim|1"),
    Argument("rewards", "batch tokens reward_dim|1"),
    Argument("returns_to_go", "batch tokens reward_dim|1"),
    _whole("timesteps", "batch tokens", high="tokens"),
)

BY_NAME: dict[str, list[Argument]] = {
    name: [argument for argument in ARGUMENTS if argument.name == name]
    for name in dict.fromkeys(argument.name for argument in ARGUMENTS)
}
