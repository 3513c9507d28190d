"""Predict boxes: for each sample the objects that a detector sees, by name, in pixels of the sample's own picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.network import LABELS, Network
from surgeon.data.whole import Samples
from surgeon.errors import TrainingError
from surgeon.families.detectors import object_classes
from surgeon.training.detection import DETECTIONS, PREDICTED
from surgeon.training.predictions import FEW, Predictions, run_batches

HEADER = ("sample", "class", "score", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class BoxPredictions(Predictions):
    """The boxes that a detector predicts; ``values`` counts them by class.

    Attributes:
        boxes: For each sample ``(boxes, 6)``, the best first: score, class number, ``left, top, right, bottom`` in
            pixels of the upright picture.
    """

    boxes: tuple[Tensor, ...] = ()

    @property
    def classes(self) -> list[Any]:
        """The class names of each sample's boxes, the best first."""
        return [[self.names[int(number)] for number in table[:, 1]] for table in self.boxes]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for each sample: ``sample``, ``part`` if there are parts, and ``boxes``, each with ``class``,
        ``score`` and ``box``."""
        table_rows = []
        for number, (table, classes) in enumerate(zip(self.boxes, self.classes, strict=True)):
            row: dict[str, Any] = {"sample": self.samples[number]}
            if self.parts:
                row["part"] = self.parts[number]
            row["boxes"] = [
                {"class": name, "score": score, "box": box}
                for name, (score, _, *box) in zip(classes, table.tolist(), strict=True)
            ]
            table_rows.append(row)
        return table_rows

    def to_table(self) -> list[list[str]]:
        """Return a header, and a row for each box, as for a CSV file."""
        parted = [list(HEADER[:1]) + (["part"] if self.parts else []) + list(HEADER[1:])]
        for row in self.rows:
            start = [row["sample"], *([row["part"]] if self.parts else [])]
            for box in row["boxes"]:
                parted.append([*start, box["class"], f"{box['score']:.6g}", *(f"{side:.6g}" for side in box["box"])])
        return parted

    def _headings(self) -> Sequence[str]:
        return ("boxes",)

    def _cells(self, number: int) -> list[str]:
        listed = [
            f"{box['class']} {100 * box['score']:.0f} % ({', '.join(f'{side:.0f}' for side in box['box'])})"
            for box in self.rows[number]["boxes"]
        ]
        return ["; ".join(listed[:FEW]) + (f"; {len(listed) - FEW} more" if len(listed) > FEW else "")]


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
    tables: list[Tensor] = []
    for source in samples:
        for outputs, _, _ in run_batches(model, source, batch_size):
            for table in outputs[PREDICTED].cpu():
                tables.append(table[(table[:, 1] >= 0) & (table[:, 0] >= min_score)])
    if not tables:
        raise TrainingError("there are no samples to predict for")
    most = max((int(table[:, 1].max()) + 1 for table in tables if len(table)), default=0)
    count = max(object_classes(model) or 0, most)
    names = network.head(LABELS).names
    names = names if len(names) >= count else tuple(map(str, range(count)))
    counted = torch.stack([torch.bincount(table[:, 1].long(), minlength=len(names)) for table in tables])
    notes = [note for source in samples for note in source.notes]
    hidden = f"boxes with a score below {min_score:g} are left out"
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
        tuple(dict.fromkeys([*notes, hidden])),
        boxes=tuple(tables),
    )
