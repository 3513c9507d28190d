"""Say as plain values how samples become a network's input, as its checkpoint has it. Imports neither torch nor data.

Pictures, videos and sounds are described by a dictionary with the key ``library``: ``transformers`` with the
``config`` of a processor, as ``preprocessor_config.json`` holds it, or ``torchvision`` with ``resize``, ``crop``,
``mean``, ``std``, ``interpolation`` and ``antialias``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TRANSFORMERS, TORCHVISION = "transformers", "torchvision"
IMAGENET: dict[str, Any] = {
    "library": TORCHVISION,
    "resize": [224, 224],
    "crop": None,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
    "antialias": True,
}
"""Means and deviations of ImageNet's channels, for a network whose checkpoint says nothing of pictures."""
UNCHANGED: dict[str, Any] = {**IMAGENET, "resize": None, "mean": [0.0] * 3, "std": [1.0] * 3}
"""Of torchvision's detectors, which resize and normalise pictures themselves: values from 0 to 1 of any size."""
SIDES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")


@dataclass(frozen=True)
class Preprocessing:
    """How samples become a network's input, as its checkpoint says.

    Attributes:
        pictures: How pictures do; None where the checkpoint does not say.
        videos: How videos do.
        sounds: How sounds do.
        tokenizer: The files of its tokenizer, with the ``config.json`` that says which network it is of; empty where
            there are none.
        texts: What training used of it: ``max_length``, the token for padding, whether texts are lists of words.
        numbers: How training made each input of plain numbers: means, deviations, names of categories.
        arguments: What the network's forward takes, by name; None where it takes anything, or nothing is known.
        notes: What is to be said of it, a line each.
    """

    pictures: Mapping[str, Any] | None = None
    videos: Mapping[str, Any] | None = None
    sounds: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    texts: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    arguments: frozenset[str] | None = None
    notes: tuple[str, ...] = ()


UNKNOWN = Preprocessing()
"""Of a network whose checkpoint says nothing."""


def side_of(config: Mapping[str, Any]) -> int | None:
    """The side in pixels of what a transformers processor makes; None where it has no such size.

    Of a processor that keeps the shape of pictures it is the shorter side.
    """
    cropped = config.get("crop_size") if config.get("do_center_crop") else None
    for size in (cropped, config.get("size")):
        if isinstance(size, int):
            return size
        if isinstance(size, Mapping):
            side = next((size[name] for name in ("height", "shortest_edge", "longest_edge") if size.get(name)), None)
            return side if isinstance(side, int) else None
    return None


def with_side(pictures: Mapping[str, Any], side: int) -> dict[str, Any] | None:
    """``pictures`` for another size; what is scaled before a crop keeps its ratio. None where it has no size."""
    if pictures["library"] == TORCHVISION:
        resize, crop = pictures["resize"], pictures["crop"]
        if crop is None or resize is None:
            return {**pictures, "resize": [side, side]}
        if isinstance(resize, int):
            return {**pictures, "resize": _scaled(resize, side, min(_pair(crop))), "crop": [side, side]}
        return {**pictures, "resize": [_scaled(v, side, min(_pair(crop))) for v in resize], "crop": [side, side]}
    config = dict(pictures["config"])
    old = side_of(config)
    if old is None:
        return None
    for name in ("size", "crop_size"):
        value = config.get(name)
        if isinstance(value, Mapping):
            config[name] = {k: _scaled(v, side, old) if k in SIDES and v else v for k, v in value.items()}
        elif isinstance(value, int):
            config[name] = _scaled(value, side, old)
    return {**pictures, "config": config}


def with_channels(pictures: Mapping[str, Any], channels: int, *, repeat: bool = False) -> dict[str, Any]:
    """``pictures`` for another number of channels: each has the mean of the old means, or they are repeated.

    Args:
        pictures: How pictures become inputs.
        channels: The new number.
        repeat: Give new channel j the values of old channel j modulo their number.
    """

    def spread(values: Any) -> Any:
        if not isinstance(values, (list, tuple)) or len(values) == channels:
            return values
        mean = sum(values) / len(values)
        return [values[i % len(values)] if repeat else mean for i in range(channels)]

    if pictures["library"] == TORCHVISION:
        return {**pictures, "mean": spread(pictures["mean"]), "std": spread(pictures["std"])}
    config = dict(pictures["config"])
    for name in ("image_mean", "image_std"):
        if name in config:
            config[name] = spread(config[name])
    if channels != 3:
        config["do_convert_rgb"] = False
    return {**pictures, "config": config}


def channels_of(pictures: Mapping[str, Any]) -> int:
    """The number of channels of what ``pictures`` makes; 3 where it does not say."""
    mean = pictures["mean"] if pictures["library"] == TORCHVISION else pictures["config"].get("image_mean")
    return len(mean) if isinstance(mean, (list, tuple)) else 3


def _scaled(value: int, side: int, old: int) -> int:
    return round(value * side / old)


def _pair(size: int | list[int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)
