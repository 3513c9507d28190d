"""Predictions over several views of a picture (test-time augmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transform

from surgeon.errors import TrainingError
from surgeon.training.objectives import Batch

PICTURES = "pixel_values"
CROP = 0.875
"""The share of the side that each of five crops keeps, as in the evaluation of ImageNet networks (224 of 256)."""


class TestViews:
    """Runs a network on several views of every picture and averages what it predicts.

    Probabilities are averaged, of classes and of yes/no questions, and come back as logits; other outputs are averaged
    as they are.

    Args:
        views: ``plain``, ``flip`` (mirrored) and ``crops`` (the corners and the centre, resized again).
        kinds: What each output is: ``classes``, ``questions``, ``values``.

    Raises:
        TrainingError: On a call: there are no pictures, or an output is no single prediction of each.
    """

    __test__ = False  # the name is not of a test

    def __init__(self, views: Sequence[str], kinds: Mapping[str, str | None]) -> None:
        self.views = tuple(views)
        self.kinds = dict(kinds)

    def __call__(self, run: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """The averaged outputs of ``run`` for a batch."""
        if PICTURES not in batch or batch[PICTURES].ndim != 4:
            raise TrainingError("there are no pictures to view", where="train.test_views", hint="leave test_views out")
        pictures = batch[PICTURES]
        made = [run({**batch, PICTURES: picture}) for view in self.views for picture in _views(view, pictures)]
        return {name: self._mean(name, [outputs[name] for outputs in made]) for name in made[0]}

    def _mean(self, name: str, outputs: list[Tensor]) -> Tensor:
        kind = self.kinds.get(name)
        if kind is not None and outputs[0].ndim > 2:
            raise TrainingError(
                f"test_views averages one prediction for each picture, and {name!r} has shape "
                f"{tuple(outputs[0].shape)}",
                where="train.test_views",
                hint="leave test_views out",
            )
        stacked = torch.stack([output.float() if output.is_floating_point() else output for output in outputs])
        if kind == "classes":
            return F.log_softmax(stacked, dim=-1).logsumexp(0) - math.log(len(outputs))
        if kind == "questions":
            yes = F.logsigmoid(stacked).logsumexp(0)
            return yes - F.logsigmoid(-stacked).logsumexp(0)
        return stacked.mean(0) if stacked.is_floating_point() else stacked[0]


def _views(view: str, pictures: Tensor) -> list[Tensor]:
    if view == "flip":
        return [transform.horizontal_flip(pictures)]
    if view == "crops":
        height, width = pictures.shape[-2:]
        crops = transform.five_crop(pictures, [math.ceil(height * CROP), math.ceil(width * CROP)])
        return [transform.resize(crop, [height, width], antialias=True) for crop in crops]
    return [pictures]
