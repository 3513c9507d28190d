"""Predict on several views of a picture (test-time augmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from surgeon.errors import TrainingError
from surgeon.training.calls import Batch

PICTURES = "pixel_values"
CROP = 0.875
"""The share of the side in each of five crops, as in the evaluation of ImageNet networks (224 of 256)."""


class TestViews:
    """Run a network on several views of every picture and average its predictions.

    Probabilities of classes and of yes/no questions are averaged and returned as logits. Other outputs are averaged
    directly.

    Args:
        views: ``plain``, ``flip`` (mirrored) and ``crops`` (the corners and the centre, resized again).
        kinds: The kind of each output: ``classes``, ``questions``, ``values``.

    Raises:
        TrainingError: On a call: the batch has no pictures, or an output has several predictions per picture.
    """

    __test__ = False  # pytest must not collect it

    def __init__(self, views: Sequence[str], kinds: Mapping[str, str | None]) -> None:
        self.views = tuple(views)
        self.kinds = dict(kinds)

    def __call__(self, run: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """Return the averaged outputs of ``run`` for a batch."""
        if PICTURES not in batch or batch[PICTURES].ndim != 4:
            raise TrainingError(
                "test_views needs pictures, and the data have none",
                where="train.test_views",
                hint="leave test_views out",
            )
        pictures = batch[PICTURES]
        predictions = [run({**batch, PICTURES: picture}) for view in self.views for picture in _views(view, pictures)]
        return {name: self._mean(name, [outputs[name] for outputs in predictions]) for name in predictions[0]}

    def _mean(self, name: str, outputs: list[Tensor]) -> Tensor:
        kind = self.kinds.get(name)
        if kind is not None and outputs[0].ndim > 2:
            raise TrainingError(
                f"test_views averages one prediction per picture, but {name!r} has shape {tuple(outputs[0].shape)}",
                where="train.test_views",
                hint="leave test_views out",
            )
        stacked = torch.stack([output.float() if output.is_floating_point() else output for output in outputs])
        if kind == "classes":
            return F.log_softmax(stacked, dim=-1).logsumexp(0) - math.log(len(outputs))
        if kind == "questions":
            log_yes = F.logsigmoid(stacked).logsumexp(0)
            return log_yes - F.logsigmoid(-stacked).logsumexp(0)
        return stacked.mean(0) if stacked.is_floating_point() else stacked[0]


def _views(view: str, pictures: Tensor) -> list[Tensor]:
    if view == "flip":
        return [transform.horizontal_flip(pictures)]
    if view == "crops":
        height, width = pictures.shape[-2:]
        crops = transform.five_crop(pictures, [math.ceil(height * CROP), math.ceil(width * CROP)])
        return [transform.resize(crop, [height, width], antialias=True) for crop in crops]
    return [pictures]
