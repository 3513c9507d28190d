"""The losses that ship with surgeon: a plugin like any other.

Each takes ``loss(prediction, target)`` to one value a sample, ``(batch,)``: the mean over those of the
sample's elements (classes, tokens, pixels) that have a label. Samples without any label are left out by the
training loop, which hands them in with a target of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.data.labels import IGNORED, present
from surgeon.errors import TrainingError
from surgeon.interfaces.hooks import hookimpl

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of classes: ``(batch, classes)`` against ``(batch,)``, tokens and pixels too.

    Shapes: ``(batch, classes, height, width)`` or ``(batch, tokens, classes)`` against a target without the
    classes; whole numbers from 0, or -100 where there is no label.

    Raises:
        TrainingError: The shapes do not go together, or the target is no whole number.
    """
    if target.is_floating_point():
        raise TrainingError(
            "cross_entropy needs whole numbers as labels, not real ones", hint="use bce, mse, huber or cosine"
        )
    logits = classes_second(prediction, target)
    values = F.cross_entropy(logits.float(), target.long(), ignore_index=IGNORED, reduction="none")
    return _mean_by_sample(values, present(target))


def bce(prediction: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits: independent yes/no questions, ``(batch, …)`` against 0…1 of that shape."""
    return _elementwise(F.binary_cross_entropy_with_logits, prediction, target)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error: ``(batch, …)`` against the same shape."""
    return _elementwise(F.mse_loss, prediction, target)


def huber(prediction: Tensor, target: Tensor) -> Tensor:
    """Huber's loss with δ = 1 (Huber 1964): ``(batch, …)`` against the same shape."""
    return _elementwise(F.huber_loss, prediction, target)


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine between vectors: ``(batch, …, features)`` against the same shape.

    A vector with a missing element is missing as a whole.
    """
    prediction, valid = align(prediction, target), present(target)
    values = 1 - F.cosine_similarity(prediction.float(), target.where(valid, 0).float(), dim=-1)
    return _mean_by_sample(values, valid.all(-1))


def classes_second(prediction: Tensor, target: Tensor) -> Tensor:
    """Move the classes of ``prediction`` to dimension 1.

    They are last in ``(batch, tokens, classes)`` and second in ``(batch, classes, height, width)``.

    Raises:
        TrainingError: Without its classes, ``prediction`` has not the shape of ``target``.
    """
    if prediction.ndim == 3 and prediction.shape[:2] == target.shape:
        return prediction.movedim(-1, 1)
    if prediction.ndim >= 2 and (prediction.shape[0], *prediction.shape[2:]) == tuple(target.shape):
        return prediction
    raise TrainingError(
        f"predictions of shape {tuple(prediction.shape)} do not go with class labels of shape {tuple(target.shape)}"
    )


def align(prediction: Tensor, target: Tensor) -> Tensor:
    """``prediction`` in the shape of ``target``: ``(batch, 1)`` also goes with ``(batch,)``.

    Raises:
        TrainingError: The shapes differ; to broadcast them would train on something else than was meant.
    """
    if prediction.shape == (*target.shape, 1):
        prediction = prediction.squeeze(-1)
    if prediction.shape != target.shape:
        raise TrainingError(
            f"predictions of shape {tuple(prediction.shape)} do not go with labels of shape {tuple(target.shape)}"
        )
    return prediction


def _elementwise(function: Callable[..., Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    prediction, valid = align(prediction, target), present(target)
    values = function(prediction.float(), target.where(valid, 0).float(), reduction="none")
    return _mean_by_sample(values, valid)


def _mean_by_sample(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of ``values (batch, …)`` over the ``valid`` ones of each sample; 0 where none is."""
    valid = valid.reshape(len(valid), -1)
    kept = values.reshape(len(values), -1).where(valid, torch.zeros((), device=values.device))
    return kept.sum(1) / valid.sum(1).clamp(min=1)


@hookimpl
def surgeon_losses() -> Mapping[str, Loss]:
    """Register the built-in losses."""
    return {"cross_entropy": cross_entropy, "bce": bce, "mse": mse, "huber": huber, "cosine": cosine}
