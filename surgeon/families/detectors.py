"""Recognise networks that detect boxes and compute their own loss, and count the kinds of objects that they know."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from torch import nn

Library = Literal["torchvision", "transformers"]
GIVEN = {"pixel_values", "pixel_mask", "labels"}
"""What surgeon passes to a transformers detector."""


def is_torchvision_detector(model: nn.Module) -> bool:
    """Return whether ``model`` is one of torchvision's detectors."""
    from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
    from torchvision.models.detection.ssd import SSD

    return isinstance(model, (FasterRCNN, RetinaNet, FCOS, SSD))


def detector_library(model: nn.Module) -> Library | None:
    """Return whose detector ``model`` is; None if it detects no boxes, or needs a text beside the picture.

    A transformers detector takes ``labels`` with ``class_labels`` and ``boxes``, and returns ``logits`` and
    ``pred_boxes``, as DETR does.
    """
    if is_torchvision_detector(model):
        return "torchvision"
    if "ForObjectDetection" not in type(model).__name__ or not hasattr(model, "config"):
        return None
    parameters = inspect.signature(model.forward).parameters
    required = {name for name, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    return "transformers" if {"pixel_values", "labels"} <= set(parameters) and required <= GIVEN else None


def predicts(model: nn.Module, kind: Literal["mask", "keypoint"]) -> bool:
    """Return whether a torchvision detector predicts masks or keypoints beside its boxes."""
    return getattr(getattr(model, "roi_heads", None), f"{kind}_predictor", None) is not None


def object_classes(model: nn.Module) -> int | None:
    """Return how many kinds of objects a detector knows, without the background; None if its head is unknown.

    torchvision counts the background as class 0 in every family, so an output is reserved for it.
    """
    if not is_torchvision_detector(model):
        return getattr(getattr(model, "config", None), "num_labels", None)
    head: Any = getattr(getattr(model, "head", None), "classification_head", None)
    scores = getattr(getattr(getattr(model, "roi_heads", None), "box_predictor", None), "cls_score", None)
    if isinstance(scores, nn.Linear):
        return scores.out_features - 1
    columns = getattr(head, "num_classes", getattr(head, "num_columns", None))
    return columns - 1 if isinstance(columns, int) else None


def picture_channels(model: nn.Module) -> int:
    """Return the channels of the pictures that a torchvision detector normalises itself."""
    means: Any = getattr(getattr(model, "transform", None), "image_mean", None)
    return len(means) if isinstance(means, (list, tuple)) else 3
