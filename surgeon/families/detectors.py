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


def stock_names(model: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the objects and of the keypoints that torchvision's own weights predict; empty if unknown.

    All of its detectors are trained on COCO, whose ids have gaps ("N/A"). Only heads of just that size have the names.
    """
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, KeypointRCNN_ResNet50_FPN_Weights

    if not is_torchvision_detector(model):
        return (), ()
    points = predicts(model, "keypoint")
    meta = (KeypointRCNN_ResNet50_FPN_Weights if points else FasterRCNN_ResNet50_FPN_Weights).COCO_V1.meta
    objects = tuple(meta["categories"][1:])  # the first is the background
    if object_classes(model) != len(objects):
        objects = ()
    if not points:
        return objects, ()
    named = tuple(meta["keypoint_names"])
    scores: Any = model.roi_heads.keypoint_predictor.kps_score_lowres  # type: ignore[union-attr]
    return objects, named if scores.out_channels == len(named) else ()


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
