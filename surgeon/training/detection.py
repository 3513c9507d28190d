"""Run detectors: boxes as each library takes them, the network's own loss, and its predictions in pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import IGNORED
from surgeon.data.network import BOXES, CROWD, LABELS, MASKS, SIZES, Network
from surgeon.errors import TrainingError
from surgeon.families.detectors import detector_library, object_classes, predicts, stock_names
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.calls import Batch, Call

DETECTIONS = "detections"
"""The name of a detector's output: the loss of each sample, since that is what trains it."""
PREDICTED = "detections.boxes"
"""The predicted boxes beside it, ``(batch, MOST, 6)``: score, class, ``x1, y1, x2, y2`` in pixels; -100 for none."""
DETECTION_LOSS = "detection"
MOST = 100
"""The most boxes per picture, as in COCO's metrics."""
HALF = 0.5
"""From which probability on a pixel is of an object, as torchvision's documentation has it."""
PROCESSORS = {
    "d_fine": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
}
"""Image processors of detectors that transformers maps to none; they turn outputs into boxes."""
UNSUITED: dict[str, Any] = {
    "distill": None,
    "mix": None,
    "test_views": [],
    "class_weights": None,
    "label_smoothing": 0.0,
    "features": "none",
    "domain_bn": "mixed",
}
"""Settings that change a loss or outputs that a detector keeps to itself, with the values that leave them out."""


def with_detector(network: Network, model: nn.Module) -> Network:
    """Add to ``network`` what the data must know of a detector; other networks are returned unchanged."""
    library = detector_library(model)
    if library is None:
        return network
    head = network.head(LABELS)
    if head.count is None and not head.names:  # nothing has replaced it
        head = replace(head, names=stock_names(model)[0])
    count = head.count if head.count is not None and head.names else object_classes(model)
    # COCO's ids have gaps, which some checkpoints call N/A
    partial = head.partial or len(set(head.names)) < len(head.names) or "N/A" in head.names
    heads = {**network.heads, LABELS: replace(head, count=count, partial=partial, loss="cross_entropy")}
    keypoints = "networks that predict keypoints cannot be trained on boxes alone, and surgeon reads no keypoints"
    return replace(
        network,
        heads=heads,
        detector=library,
        masks=predicts(model, "mask"),
        refusal=keypoints if predicts(model, "keypoint") else None,
    )


def detection(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the loss that a detector computed itself, ``(batch,)``: the sum of its parts, as its authors weigh them.

    Args:
        prediction: The output ``detections``.
        target: The classes of the boxes, which the network has compared with its own.

    Raises:
        TrainingError: The output is not a detector's.
    """
    if prediction.ndim != 1:
        raise TrainingError(
            f"detection is the loss that a detector computes itself, not one of shapes {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}",
            hint=f"it belongs to the output {DETECTIONS!r} of a detector; use cross_entropy for classes",
        )
    return prediction


def default_objective() -> Objective:
    """Return the objective of a detector."""
    return Objective(output=DETECTIONS, loss=DETECTION_LOSS, label=LABELS)


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that have no meaning for a network with a loss of its own.

    Raises:
        TrainingError: One is set.
    """
    for name, neutral in UNSUITED.items():
        if getattr(settings, name) not in (neutral, None, ()):
            raise TrainingError(
                f"{name} changes a loss or an output, and a detector computes its loss from its own",
                where=f"train.{name}",
                hint=f"leave {name} out",
            )
    if settings.sampling == "balanced":
        raise TrainingError(
            "sampling: balanced needs one class per sample, and pictures have several boxes",
            where="train.sampling",
            hint="use sampling: uniform",
        )


@dataclass(frozen=True)
class Detected:
    """What a detector sees in one picture, the best first.

    Attributes:
        boxes: ``(objects, 6)``: score, class, ``x1, y1, x2, y2`` in pixels.
        masks: ``(objects, height, width)``: which pixels are of the object; None for detectors without masks.
        keypoints: ``(objects, points, 3)``: ``x, y`` in pixels and a score (a logit); None without keypoints.
    """

    boxes: Tensor
    masks: Tensor | None = None
    keypoints: Tensor | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Tensor], background: int) -> Detected:
        """Return the best :data:`MOST` objects of what a library returns for a picture."""
        scores = entry["scores"]
        order = scores.argsort(descending=True, stable=True)[:MOST]
        labels = (entry["labels"] - background)[order, None].float()
        boxes = torch.cat([scores[order, None].float(), labels, entry["boxes"][order].float()], 1)
        masks = entry["masks"][order, 0] >= HALF if "masks" in entry else None
        points = None
        if "keypoints" in entry:
            places = entry["keypoints"][order, :, :2].float()
            points = torch.cat([places, entry["keypoints_scores"][order, :, None].float()], 2)
        return cls(boxes, masks, points)

    @property
    def padded(self) -> Tensor:
        """The boxes ``(MOST, 6)``, with -100 for none."""
        return torch.nn.functional.pad(self.boxes, (0, 0, 0, MOST - len(self.boxes)), value=IGNORED)


@dataclass(frozen=True)
class DetectorCall(Call):
    """How to call a detector with a batch. Its outputs are :data:`DETECTIONS` and, in eval mode, :data:`PREDICTED`.

    Attributes:
        model: The detector, without wrappers.
    """

    model: nn.Module

    @classmethod
    def of_detector(cls, model: nn.Module, inputs: Sequence[str]) -> DetectorCall:
        """Return how to call the detector ``model``."""
        return cls(tuple(inputs), True, DETECTIONS, model)

    def __call__(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Run ``model``, or its wrapper."""
        if detector_library(self.model) == "torchvision":
            return self._torchvision(model, batch)
        return self._transformers(model, batch)

    def _torchvision(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        sizes = batch[SIZES].tolist()
        pictures = [p[:, :high, :wide] for p, (high, wide) in zip(batch["pixel_values"], sizes, strict=True)]
        outputs: dict[str, Tensor] = {}
        if LABELS in batch and BOXES in batch:
            targets = list(_targets(batch, sizes))
            if self.model.training:
                return {DETECTIONS: _total(model(pictures, targets), len(pictures))}
            with _computing_losses(self.model):
                outputs[DETECTIONS] = _total(model(pictures, targets), len(pictures))
        return outputs | {PREDICTED: torch.stack([objects.padded for objects in self.detected(model, batch)])}

    def detected(self, model: Callable[..., Any], batch: Batch) -> list[Detected]:
        """Run a detector in eval mode, and return what it sees in each picture."""
        sizes = batch[SIZES].tolist()
        with torch.no_grad():
            if detector_library(self.model) == "torchvision":
                pictures = [p[:, :high, :wide] for p, (high, wide) in zip(batch["pixel_values"], sizes, strict=True)]
                return [Detected.of(entry, 1) for entry in model(pictures)]
            return self._processed(model(**{name: batch[name] for name in self.inputs if name != SIZES}), batch)

    def _processed(self, outputs: Any, batch: Batch) -> list[Detected]:
        """Turn the outputs of a transformers detector into objects by its family's processor."""
        with torch.no_grad():
            process = _processor(self.model).post_process_object_detection
            return [Detected.of(entry, 0) for entry in process(outputs, threshold=0.0, target_sizes=batch[SIZES])]

    def _transformers(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        arguments: dict[str, Any] = {name: batch[name] for name in self.inputs if name != SIZES}
        if LABELS in batch and BOXES in batch:
            arguments["labels"] = list(_normalised(batch))
        outputs = model(**arguments)
        results: dict[str, Tensor] = {}
        if "labels" in arguments:
            results[DETECTIONS] = outputs.loss.expand(len(batch[SIZES]))
        if self.model.training:
            return results
        return results | {PREDICTED: torch.stack([objects.padded for objects in self._processed(outputs, batch)])}


def _targets(batch: Mapping[str, Tensor], sizes: list[list[int]]) -> Iterator[dict[str, Tensor]]:
    """Yield the boxes of each picture as torchvision takes them: classes from 1 on, 0 is the background."""
    for number, (labels, (high, wide)) in enumerate(zip(batch[LABELS], sizes, strict=True)):
        valid = _trained(batch, number)
        target = {"boxes": batch[BOXES][number][valid], "labels": labels[valid] + 1}
        if MASKS in batch:
            masks = batch[MASKS][number]
            target["masks"] = masks[valid[: len(masks)], :high, :wide]
        yield target


def _normalised(batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the boxes of each picture as transformers takes them: centre and size, as shares of the picture's."""
    from torchvision.ops import box_convert

    for number, (labels, (high, wide)) in enumerate(zip(batch[LABELS], batch[SIZES], strict=True)):
        valid = _trained(batch, number)
        scale = torch.stack([wide, high, wide, high])
        boxes = box_convert(batch[BOXES][number][valid], "xyxy", "cxcywh") / scale
        yield {"class_labels": labels[valid], "boxes": boxes}


def _trained(batch: Mapping[str, Tensor], number: int) -> Tensor:
    return (batch[LABELS][number] != IGNORED) & ~batch[CROWD][number].bool()


def _total(losses: Any, count: int) -> Tensor:
    """Sum the parts of a torchvision loss, for each of ``count`` samples."""
    total: Tensor = torch.stack(list(losses.values())).sum()
    return total.expand(count)


@contextmanager
def _computing_losses(model: nn.Module) -> Iterator[None]:
    """Let a torchvision detector in eval mode compute its losses, with the same draws in every evaluation.

    Only the modules that choose between losses and predictions change their mode; norms and dropout do not.
    """
    modules = [m for m in (model, getattr(model, "rpn", None), getattr(model, "roi_heads", None)) if m is not None]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        try:
            for module in modules:
                module.training = True
            yield
        finally:
            for module in modules:
                module.training = False


def _processor(model: nn.Module) -> Any:
    """Return the image processor of a transformers detector's family, which turns outputs into boxes.

    Raises:
        TrainingError: transformers has none.
    """
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    kind = getattr(model.config, "model_type", "")
    mapped: Any = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
    candidates = list(mapped.values()) if isinstance(mapped, Mapping) else [mapped]
    for name in (*candidates, PROCESSORS.get(kind)):
        processor: Any = getattr(transformers, name, None) if isinstance(name, str) else None
        if hasattr(processor, "post_process_object_detection"):
            return processor()
    raise TrainingError(
        f"transformers has no image processor for {type(model).__name__} that turns its outputs into boxes",
        where="train.data",
    )


def flat_boxes(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Return predictions and labels in a row per sample: :data:`MOST` x 6 numbers, then label, crowd and box of each.

    Missing boxes are -100.
    """
    annotated = torch.cat([batch[LABELS][..., None], batch[CROWD][..., None], batch[BOXES]], -1).float()
    annotated = annotated.masked_fill(batch[LABELS][..., None] == IGNORED, IGNORED)
    return torch.cat([outputs[PREDICTED].flatten(1), annotated.flatten(1).to(outputs[PREDICTED].device)], 1)
