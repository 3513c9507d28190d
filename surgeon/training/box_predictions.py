"""Predict boxes, with masks and keypoints: the objects that a detector sees, by name, in pixels of the own picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from surgeon.data.network import LABELS, Network
from surgeon.data.whole import Samples
from surgeon.errors import TrainingError
from surgeon.families.detectors import object_classes, stock_names
from surgeon.training.detection import DETECTIONS, Detected, DetectorCall
from surgeon.training.penalties import in_eval_mode
from surgeon.training.predictions import FEW, Predictions
from surgeon.training.sample_predictions import batches_of

HEADER = ("sample", "class", "score", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class BoxPredictions(Predictions):
    """The boxes that a detector predicts; ``values`` counts them by class.

    Attributes:
        boxes: For each sample ``(boxes, 6)``, the best first: score, class number, ``left, top, right, bottom`` in
            pixels of the upright picture.
        masks: For each sample the mask of each box, as COCO's uncompressed run lengths: ``size``, height and width, and
            ``counts``, the lengths of runs down the columns, the first of pixels outside. Empty without masks.
        keypoints: For each sample ``(boxes, points, 3)``: ``x, y`` in pixels, and a score, which is a logit. Empty
            without keypoints.
        points: The names of the keypoints.
    """

    boxes: tuple[Tensor, ...] = ()
    masks: tuple[tuple[dict[str, list[int]], ...], ...] = ()
    keypoints: tuple[Tensor, ...] = ()
    points: tuple[str, ...] = ()

    @property
    def classes(self) -> list[Any]:
        """The class names of each sample's boxes, the best first."""
        return [[self.names[int(number)] for number in table[:, 1]] for table in self.boxes]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each sample: ``sample``, ``part`` if there are parts, and ``boxes``, each with ``class``,
        ``score``, ``box``, ``mask`` if there are masks, and ``keypoints`` by name if there are keypoints."""
        table_rows = []
        for number, (table, classes) in enumerate(zip(self.boxes, self.classes, strict=True)):
            row: dict[str, Any] = {"sample": self.samples[number]}
            if self.parts:
                row["part"] = self.parts[number]
            row["boxes"] = [
                {"class": name, "score": score, "box": box}
                for name, (score, _, *box) in zip(classes, table.tolist(), strict=True)
            ]
            for place, box in enumerate(row["boxes"]):
                if self.masks:
                    box["mask"] = self.masks[number][place]
                if self.keypoints:
                    box["keypoints"] = dict(zip(self.points, self.keypoints[number][place].tolist(), strict=True))
            table_rows.append(row)
        return table_rows

    def to_table(self) -> list[list[str]]:
        """Return a header, and a row for each box, as for a CSV file; a mask is one cell, of JSON."""
        header = list(HEADER[:1]) + (["part"] if self.parts else []) + list(HEADER[1:])
        header += ["mask"] if self.masks else []
        header += [f"{name} {what}" for name in self.points for what in ("x", "y", "score")]
        table = [header]
        for row in self.rows:
            for box in row["boxes"]:
                cells = [row["sample"], *([row["part"]] if self.parts else []), box["class"], f"{box['score']:.6g}"]
                cells += [f"{side:.6g}" for side in box["box"]]
                cells += [json.dumps(box["mask"])] if self.masks else []
                cells += [f"{value:.6g}" for point in box.get("keypoints", {}).values() for value in point]
                table.append(cells)
        return table

    def _headings(self) -> Sequence[str]:
        return ("boxes",)

    def _cells(self, number: int) -> list[str]:
        listed = [
            f"{box['class']} {100 * box['score']:.0f} % ({', '.join(f'{side:.0f}' for side in box['box'])})"
            for box in self.rows[number]["boxes"]
        ]
        return ["; ".join(listed[:FEW]) + (f"; {len(listed) - FEW} more" if len(listed) > FEW else "")]


def run_lengths(mask: Tensor) -> dict[str, list[int]]:
    """Return a mask ``(height, width)`` as COCO's uncompressed run lengths."""
    flat = torch.cat([torch.zeros(1, dtype=torch.bool), mask.bool().cpu().T.reshape(-1)])  # begins outside
    changes = (flat[1:] != flat[:-1]).nonzero().reshape(-1)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), changes, torch.tensor([mask.numel()])])
    return {"size": list(mask.shape), "counts": ends.diff().tolist()}


def predict_boxes(
    model: nn.Module, samples: Sequence[Samples], network: Network, *, min_score: float, batch_size: int
) -> BoxPredictions:
    """Run a detector over samples.

    Args:
        model: The detector.
        samples: The samples.
        network: The names of its classes.
        min_score: The least score of a box.
        batch_size: Samples per batch.

    Raises:
        TrainingError: There are no samples.
    """
    detected: list[Detected] = []
    masks: list[tuple[dict[str, list[int]], ...]] = []
    for source in samples:
        for call, batch, _ in batches_of(model, source, batch_size):
            with in_eval_mode(model):
                objects_of_pictures = cast("DetectorCall", call).detected(model, batch)
            for objects in objects_of_pictures:
                clear = (objects.boxes[:, 1] >= 0) & (objects.boxes[:, 0] >= min_score)
                points = objects.keypoints
                detected.append(
                    Detected(objects.boxes[clear].cpu(), None, None if points is None else points[clear].cpu())
                )
                if objects.masks is not None:
                    masks.append(tuple(map(run_lengths, objects.masks[clear])))
    if not detected:
        raise TrainingError("there are no samples to predict for")
    tables = [objects.boxes for objects in detected]
    keypoints = [objects.keypoints for objects in detected if objects.keypoints is not None]
    most = max((int(table[:, 1].max()) + 1 for table in tables if len(table)), default=0)
    count = max(object_classes(model) or 0, most)
    names = network.head(LABELS).names
    names = names if len(names) >= count else tuple(map(str, range(count)))
    coco_objects, coco_points = stock_names(model)
    named = coco_points or tuple(map(str, range(keypoints[0].shape[1] if keypoints else 0)))
    counted = torch.stack([torch.bincount(table[:, 1].long(), minlength=len(names)) for table in tables])
    notes = [note for source in samples for note in source.notes]
    if coco_objects and names == coco_objects:
        notes.append("the head has the size of torchvision's for COCO, whose names its classes have here")
    notes.append(f"boxes with a score below {min_score:g} are left out")
    return BoxPredictions(
        DETECTIONS,
        "boxes",
        names,
        counted.float(),
        tuple(name for source in samples for name in source.names),
        None,
        tuple(part for source in samples for part in (source.parts or [""] * len(source)))
        if any(source.parts for source in samples)
        else (),
        tuple(dict.fromkeys(notes)),
        boxes=tuple(tables),
        masks=tuple(masks),
        keypoints=tuple(keypoints),
        points=named if keypoints else (),
    )
