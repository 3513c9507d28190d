"""Recognise networks of videos, and how many frames they take."""

from __future__ import annotations

from torch import nn

from surgeon.families.transformers.tasks import class_for

FRAMES = ("num_frames", "frames_per_clip")
"""What configs call the number of frames in a video."""
VIDEO_TYPES = ("xclip", "tvp")
"""Networks of videos beside those that transformers lists as classifiers of videos."""


def frames_of(model: nn.Module) -> int | None:
    """Return how many frames a network of videos takes, by its config; None for other networks."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if not isinstance(kind, str) or not (kind in VIDEO_TYPES or class_for("video_classification", kind)):
        return None
    settings = [config, getattr(config, "vision_config", None)]
    counts = (getattr(part, name, None) for part in settings for name in FRAMES)
    return next((count for count in counts if isinstance(count, int)), None)


def slides_over_time(model: nn.Module) -> bool:
    """Return whether a network that is not of transformers begins with a convolution over space and time."""
    first = next((module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))), None)
    return isinstance(first, nn.Conv3d) and not hasattr(model, "config")
