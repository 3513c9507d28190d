"""What a transformers network takes, by its config, its main input and the signature of its forward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon.graph.inputs import BATCH, Inputs, Spec

TOKENS = 8
SAMPLES = 8000
"""Half a second of sound at 16 kHz."""
FRAMES = 64
"""Frames of a spectrogram, where a config does not say."""
PAIRED = ("input_ids", "pixel_values", "input_features", "input_values")
"""What a network of two towers takes beside its main input."""


def from_config(model: nn.Module) -> Inputs:
    """The inputs of a transformers model.

    Raises:
        OperationError: The model takes something that neither its config nor its signature explains.
    """
    config: Any = model.config
    parameters = inspect.signature(model.forward).parameters
    names = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    main = model.main_input_name
    wanted = [main] if isinstance(main, str) else list(main)  # type: ignore[arg-type]
    wanted = [n for n in wanted if n in names] or [n for n in PAIRED if n in names][:1]
    wanted += [n for n in names if parameters[n].default is inspect.Parameter.empty and n not in wanted]
    beside = [n for n in PAIRED if n in names and n not in wanted]
    if _is_pair(model):
        wanted, beside = [*wanted, *beside], []
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        wanted.append("decoder_input_ids")
    if "decoder_input_ids" in wanted and "input_ids" not in names and "input_ids" in wanted:
        wanted.remove("input_ids")

    batch = _batch(model, config)
    choices = {name: _choices(name, config, batch) for name in wanted}
    missing = [name for name, specs in choices.items() if not specs]
    if missing:
        raise OperationError(
            f"{type(model).__name__} takes {missing[0]!r}, of which its config does not tell the shape",
            hint=f"say it: `inputs: {{{missing[0]}: [2, 8]}}` in the recipe, inputs=… in Python",
        )
    found = list(_combined(choices))
    if more := {name: _choices(name, config, batch) for name in beside}:
        found += _combined({**choices, **{name: specs for name, specs in more.items() if specs}})
    return replace(found[0], alternatives=tuple(found[1:]))


def _combined(choices: dict[str, list[Spec]]) -> Iterator[Inputs]:
    """The first choice for every argument, then the second, and so on."""
    for i in range(max(len(specs) for specs in choices.values())):
        kwargs = {name: specs[min(i, len(specs) - 1)] for name, specs in choices.items()}
        shapes = ", ".join(f"{name} {list(spec.shape)}" for name, spec in kwargs.items())
        yield Inputs(kwargs=kwargs, origin=f"from its config and signature: {shapes}")


def _is_pair(model: nn.Module) -> bool:
    """Two towers side by side, as in CLIP, where neither feeds the other."""
    parts = set(getattr(model.config, "sub_configs", {}))
    headless = type(model).__name__.endswith("Model")
    return headless and {"text_config"} < parts and hasattr(model.config, "projection_dim")


def _batch(model: nn.Module, config: Any) -> int:
    """One sample where a causal model classifies by its last token and knows no padding."""
    single = "Classification" in type(model).__name__ and _get(config, "pad_token_id") is None
    return 1 if single and hasattr(model, "score") else BATCH


def _choices(name: str, config: Any, batch: int) -> list[Spec]:
    shapes = _BY_NAME.get(name)
    return shapes(config, batch) if shapes else []


def _get(config: Any, *names: str, default: Any = None) -> Any:
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
    """Words that end with the end-of-sentence token, and have it nowhere else."""
    text = _text(config)
    words = _get(text, "vocab_size") or _get(config, "vocab_size", default=2)
    words = min(words) if isinstance(words, (list, tuple)) else words
    end = _get(text, "eos_token_id")
    if not isinstance(end, int) or not 0 <= end < words:
        return [Spec((batch, TOKENS), torch.int64, high=words)]
    low, high = (0, end) if end >= words // 2 else (end + 1, words)
    return [Spec((batch, TOKENS), torch.int64, low, high, last=end)]


def _decoder_tokens(config: Any, batch: int) -> list[Spec]:
    decoder = getattr(config, "decoder", None) or _text(config)
    return _tokens(decoder if hasattr(decoder, "to_dict") else config, batch)


def _side(config: Any) -> tuple[int, int]:
    size = _get(config, "image_size", "img_size", "input_size", default=224)
    if isinstance(size, dict):
        size = list(size.values())
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _images(config: Any, batch: int) -> list[Spec]:
    channels = _get(config, "num_channels", "in_channels", "in_chans", default=3)
    image = (channels, *_side(config))
    frames = _get(config, "num_frames", "frames_per_clip")
    clips = [Spec((batch, frames, *image))] if isinstance(frames, int) else []
    return [*clips, Spec((batch, *image)), Spec((batch, channels, 64, 64)), Spec((batch, channels, 256, 256))]


def _waveforms(config: Any, batch: int) -> list[Spec]:
    bins, length = _get(config, "num_mel_bins"), _get(config, "max_length")
    if isinstance(bins, int) and _get(config, "patch_size") is not None:  # a spectrogram cut into patches
        return [Spec((batch, length or 1024, bins))]
    return [Spec((batch, SAMPLES)), Spec((batch, 1, SAMPLES)), Spec((batch, FRAMES, bins or 80))]


def _spectrograms(config: Any, batch: int) -> list[Spec]:
    bins = _get(
        config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", default=80
    )  # fmt: skip
    positions = _get(config, "max_source_positions")
    mel_first = [Spec((batch, bins, 2 * positions))] if isinstance(positions, int) else []
    return [*mel_first, Spec((batch, FRAMES, bins)), Spec((batch, bins, FRAMES)), Spec((batch, 1, 1001, bins))]


def _boxes(config: Any, batch: int) -> list[Spec]:
    return [Spec((batch, TOKENS, 4), torch.int64, high=2)]


def _series(config: Any, batch: int) -> list[Spec]:
    channels = _get(config, "num_input_channels", "input_size", default=1)
    length = _get(config, "context_length", "prediction_length", default=64)
    return [Spec((batch, length, channels)), Spec((batch, length))]


_BY_NAME: dict[str, Callable[[Any, int], list[Spec]]] = {
    "input_ids": _tokens,
    "decoder_input_ids": _decoder_tokens,
    "attention_mask": lambda config, batch: [Spec((batch, TOKENS), torch.int64, low=1)],
    "token_type_ids": lambda config, batch: [Spec((batch, TOKENS), torch.int64, high=1)],
    "pixel_values": _images,
    "pixel_values_videos": _images,
    "input_values": _waveforms,
    "input_features": _spectrograms,
    "bbox": _boxes,
    "past_values": _series,
}
