"""Convert between timm's data config and surgeon's description of how pictures become inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_config(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what timm's evaluation transform does, as plain values.

    That is the transform of ``create_transform(**resolve_data_config(pretrained_cfg=...))``: the shorter side is scaled
    to ``size / crop_pct`` (both sides where ``crop_mode`` is ``squash``), then the centre is cropped.

    Args:
        pretrained_cfg: A network's ``pretrained_cfg``.

    Returns:
        None for what surgeon's transforms cannot do: borders around the picture, a crop that is not square.
    """
    from timm.data import resolve_data_config

    config = resolve_data_config(pretrained_cfg=dict(pretrained_cfg))
    channels, height, width = config["input_size"]
    mode = config["crop_mode"]
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        return None
    scaled = [int(height / config["crop_pct"]), int(width / config["crop_pct"])]
    interpolation = config["interpolation"]
    return {
        "library": "torchvision",
        "resize": scaled if mode == "squash" else scaled[0],
        "crop": [height, width],
        "mean": _for_channels(config["mean"], channels),
        "std": _for_channels(config["std"], channels),
        "interpolation": "bilinear" if interpolation == "random" else interpolation,
        "antialias": True,
    }


def to_data_config(pictures: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's data config for a description; empty if it is not one of torchvision's transforms."""
    if pictures.get("library") != "torchvision" or not pictures.get("mean"):
        return {}
    mean = tuple(pictures["mean"])
    config = {"mean": mean, "std": tuple(pictures["std"]), "interpolation": pictures["interpolation"]}
    resize, crop = pictures["resize"], pictures["crop"] or pictures["resize"]
    if resize is None:
        return config
    squash = not isinstance(resize, int)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    share = height / (resize[0] if squash else resize)
    if share <= 1:
        config |= {"input_size": (len(mean), height, width), "crop_pct": _share(height, resize)}
        config["crop_mode"] = "squash" if squash else "center"
    return config


def _share(size: int, resize: int | list[int]) -> float:
    """Return a crop_pct from which timm computes ``resize`` again, as short as possible."""
    scaled = resize if isinstance(resize, int) else resize[0]
    for digits in range(2, 9):
        share = round(size / scaled, digits)
        if share and int(size / share) == scaled:
            return share
    return size / scaled


def _for_channels(values: Any, channels: int) -> list[float]:
    """Return one value a channel: the mean of timm's values where their number differs."""
    values = list(values)
    return values if len(values) == channels else [sum(values) / len(values)] * channels
