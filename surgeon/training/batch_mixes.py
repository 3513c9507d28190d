"""Apply mixup and CutMix to training batches, with torchvision's transforms v2."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from surgeon.data.labels import present
from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import MixSettings
from surgeon.training.calls import Batch
from surgeon.training.losses import classes_second
from surgeon.training.objectives import Target

PICTURES = "pixel_values"


class Mixing:
    """Mix the labelled pictures of a training batch and their labels, which become soft.

    Random numbers depend only on the seed and the step, so a resumed run mixes in the same way.

    Args:
        settings: The recipe's ``mix:``.
        targets: The objectives; the trained one must have one class per picture.
        outputs: The outputs of the network for ``batch``.
        batch: A small batch.
        seed: The run's seed.

    Raises:
        TrainingError: On creation: there are no pictures, or labels cannot be mixed with them.
    """

    def __init__(
        self,
        settings: MixSettings,
        targets: Sequence[Target],
        outputs: Mapping[str, Tensor],
        batch: Batch,
        seed: int,
    ) -> None:
        training = [target for target in targets if target.objective.weight]
        if PICTURES not in batch or batch[PICTURES].ndim != 4:
            raise _refused("there are no pictures to mix", "leave mix out")
        if len(training) != 1:
            raise _refused(
                f"{len(training)} objectives train, and only the labels of one can be mixed", "leave mix out"
            )
        target = training[0]
        if not target.of_classes or batch[target.objective.label].ndim != 1:
            raise _refused("it needs one class per picture, trained with cross_entropy", "leave mix out")
        self.label = target.objective.label
        classes = classes_second(outputs[target.objective.output], batch[self.label]).shape[1]
        chosen = [(settings.mixup, v2.MixUp), (settings.cutmix, v2.CutMix)]
        mixers = [kind(alpha=alpha, num_classes=classes) for alpha, kind in chosen if alpha]
        self.mix = mixers[0] if len(mixers) == 1 else v2.RandomChoice(mixers)
        self.classes = classes
        self.seed = seed

    def __call__(self, batch: dict[str, Any], key: str) -> dict[str, Any]:
        """Return a batch with mixed pictures and soft labels; ``key`` identifies the step."""
        labels = batch[self.label]
        rows = present(labels)
        soft = torch.full((len(labels), self.classes), torch.nan, device=labels.device)
        pictures = batch[PICTURES].clone()
        if rows.any():
            with torch.random.fork_rng(devices=[]):
                digest = hashlib.sha256(f"mix {self.seed} {key}".encode()).digest()
                torch.manual_seed(int.from_bytes(digest[:7], "big"))
                pictures[rows], soft[rows] = self.mix(pictures[rows], labels[rows])
        return {**batch, PICTURES: pictures, self.label: soft}


def _refused(reason: str, hint: str) -> TrainingError:
    return TrainingError(f"pictures cannot be mixed: {reason}", where="train.mix", hint=hint)
