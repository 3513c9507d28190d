"""Compute the quantities that the tables of arguments name, from a transformers config."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

from surgeon.families.expressions import SIZES, Lookup


def quantities_of(config: Any, batch: int) -> Lookup:
    """Make a lookup for expressions: ``batch``, :data:`QUANTITIES`, then the config's fields.

    ``decoder.word_low`` is computed from the decoder's config.
    """

    def lookup(names: tuple[str, ...]) -> int | None:
        for name in names:
            part, _, rest = name.rpartition(".")
            if name == "batch":
                return batch
            if rest in QUANTITIES:
                value = QUANTITIES[rest](PARTS[part](config) if part else config)
                if value is not None:
                    return value
        fields = [name for name in names if name not in QUANTITIES and "." not in name]
        value = setting(config, *fields) if fields else None
        return value if isinstance(value, int) else None

    return lookup


def setting(config: Any, *names: str, default: Any = None) -> Any:
    """Return the first of several fields that the config or one of its sub-configs has."""
    parts = [getattr(config, part, None) for part in getattr(config, "sub_configs", {})]
    for holder in [config, *parts]:
        for name in names:
            value = getattr(holder, name, None)
            if value is not None:
                return value
    return default


def image_side(config: Any) -> tuple[int, int]:
    """Return the height and width of input images; timm networks keep them in their own settings."""
    size = setting(config, "image_size", "img_size", "input_size", "max_img_size")
    if ratios := setting(config, "scaled_images_ratios"):  # the smallest copy has to hold one patch
        size = int(setting(config, "patch_size", default=size) / min(ratios))
    if size is None:
        timm = [setting(config, name, default={}) for name in ("model_args", "pretrained_cfg")]
        size = timm[0].get("img_size") or timm[1].get("input_size", [224])[-2:]
    if isinstance(size, dict):
        size = list(size.values())
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


# ---- text


def _text(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _reader(config: Any) -> Any:
    """Return the config of the module that reads the tokens."""
    if hasattr(config, "decoder_config") and hasattr(getattr(config, "encoder_config", None), "vocab_size"):
        return config.encoder_config
    return _text(config)


def _words(config: Any) -> int:
    words = setting(_reader(config), "vocab_size") or setting(config, "vocab_size", default=2)
    return min(words) if isinstance(words, (list, tuple)) else words  # type: ignore[no-any-return]


def _plain_words(config: Any) -> tuple[int, int]:
    """Return the widest range of token ids without special tokens."""
    words = _words(config)
    special = sorted(_special_tokens(config, words) | _special_tokens(_reader(config), words))
    low, high = max(pairwise([-1, *special, words]), key=lambda gap: gap[1] - gap[0])
    return (low + 1, high) if high > low + 1 else (0, words)


def _special_tokens(config: Any, words: int) -> set[int]:
    """Return the special token ids that a config names: end of sentence, image placeholder."""
    named = [v for k, v in vars(config).items() if k.endswith(("_token_id", "_token_index"))]
    return {value for value in named if type(value) is int and 0 <= value < words}


def _end(config: Any) -> int | None:
    end = setting(_reader(config), "eos_token_id")
    return end if isinstance(end, int) and 0 <= end < _words(config) else None


def _codebooks(config: Any) -> int | None:
    books = setting(config, "num_codebooks")
    return books if isinstance(books, int) and books >= 2 else None


def _decoder(config: Any) -> Any:
    decoder = getattr(config, "decoder", None) or getattr(config, "decoder_config", None) or _text(config)
    return decoder if hasattr(decoder, "to_dict") else config


def _decoder_channels(config: Any) -> int | None:
    """Return the number of audio channels that a decoder generates."""
    decoder = getattr(config, "decoder", None) or getattr(config, "decoder_config", None) or _text(config)
    channels = getattr(decoder, "num_channels", None)
    return channels if isinstance(channels, int) else None


# ---- images and audio


def _patch_side(config: Any) -> int | None:
    side = setting(config, "patch_size")
    side = side[0] if isinstance(side, (list, tuple)) and side else side
    return side if isinstance(side, int) else None


def _patch_count(config: Any) -> int:
    side = _patch_side(config) or 16
    return prod(n // side for n in image_side(config))


def _cuts_spectrograms(config: Any) -> int:
    return int(isinstance(setting(config, "num_mel_bins"), int) and setting(config, "patch_size") is not None)


def _bins(config: Any) -> int:
    names = (
        "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_feat_size", "input_dim",
    )  # fmt: skip
    return setting(config, *names, default=80) * setting(config, "num_stacked_frames", default=1)  # type: ignore[no-any-return]


def _downsampling(config: Any) -> int | None:
    ratios = setting(config, "downsampling_ratios")
    return prod(ratios) if ratios else None


# ---- time series


def _past(config: Any) -> int:
    """Return how many past values a forecast reads: its context and its longest lag."""
    lags = setting(config, "lags_sequence", default=[0])
    return int(setting(config, "context_length", "prediction_length", default=64)) + int(max(lags))


def _series(config: Any) -> int:
    return setting(config, "num_input_channels", "input_size", default=1)  # type: ignore[no-any-return]


PARTS: dict[str, Callable[[Any], Any]] = {
    "decoder": _decoder,
    "qformer": lambda config: getattr(config, "qformer_config", config),
}
"""The sub-config that a prefix in an expression stands for: ``decoder.word_low``."""

QUANTITIES: dict[str, Callable[[Any], int | None]] = {
    "word_low": lambda config: _plain_words(config)[0],
    "word_high": lambda config: _plain_words(config)[1],
    "end": _end,
    "codebooks": _codebooks,
    "decoder_channels": _decoder_channels,
    "vocabulary": lambda config: setting(config, "vocab_size", default=2),
    "image_token": lambda config: setting(config, "image_token_id", "image_token_index", default=0),
    "height": lambda config: image_side(config)[0],
    "width": lambda config: image_side(config)[1],
    "patch_side": _patch_side,
    "patch_count": _patch_count,
    "uncut": lambda config: int(setting(config, "patch_size") is None),
    "cuts_spectrograms": _cuts_spectrograms,
    "hears_waves": lambda config: 1 - _cuts_spectrograms(config),
    "bins": _bins,
    "downsampling": _downsampling,
    "heard_frames": lambda config: SIZES["samples"] // (_downsampling(config) or 1),
    "plain_rate": lambda config: int(_downsampling(config) is None),
    "past": _past,
    "ahead": lambda config: int(setting(config, "prediction_length", default=8)),
    "series": _series,
    "has_series_axis": lambda config: int(setting(config, "lags_sequence") is None or _series(config) != 1),
    "targets": lambda config: len(setting(config, "target_layer_ids", default=[0])),
    "dit_width": lambda config: getattr(getattr(config, "dit_config", None), "hidden_size", None),
}
"""Names in expressions beside the config's fields."""
