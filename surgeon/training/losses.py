"""Define the built-in losses, registered as a plugin's would be.

Each is called as ``loss(prediction, target, **options)`` and returns one value per sample, ``(batch,)``: the mean over
the sample's labelled elements (classes, tokens, pixels). Its attribute ``mass`` returns the weight of that value in the
mean over a batch, the number of its elements, so that the loss of a batch is the mean over all labelled elements, as in
torch and transformers. The training loop ignores samples without labels and passes them with a target of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.data.labels import IGNORED, present
from surgeon.errors import TrainingError
from surgeon.interfaces.hooks import hookimpl
from surgeon.training.detection import DETECTION_LOSS, detection

Loss: TypeAlias = Callable[..., Tensor]
Mass: TypeAlias = Callable[..., Tensor]
Numbers: TypeAlias = Sequence[float] | Tensor

SOFT_SUM = 1e-3
"""How far from 1 the sum of a sample's soft labels may be: they may have been rounded in a file."""

L = TypeVar("L", bound=Loss)


def counting(mass: Mass) -> Callable[[L], L]:
    """Give a loss its ``mass(target, **options) -> (batch,)``: the number of elements averaged in each value.

    A loss without one, such as a plugin's, gives every labelled sample the same weight.
    """

    def mark(loss: L) -> L:
        loss.mass = mass  # type: ignore[attr-defined]
        return loss

    return mark


def labelled_elements(target: Tensor, **options: Any) -> Tensor:
    """Count the labelled elements of each sample, ``(batch,)``."""
    return present(target).reshape(len(target), -1).sum(1).float()


def _class_mass(target: Tensor, weight: Numbers | None = None, **options: Any) -> Tensor:
    """Return the sum of the class weights of each sample, the divisor of ``F.cross_entropy``."""
    if target.is_floating_point():
        return present(target).all(-1).reshape(len(target), -1).sum(1).float()
    valid = present(target)
    if weight is None:
        return valid.reshape(len(target), -1).sum(1).float()
    weights = _numbers(weight, target.device)[target.where(valid, 0).long()] * valid
    return weights.reshape(len(target), -1).sum(1)


def _vector_mass(target: Tensor, **options: Any) -> Tensor:
    return present(target).all(-1).reshape(len(target), -1).sum(1).float()


@counting(_class_mass)
def cross_entropy(
    prediction: Tensor, target: Tensor, *, weight: Numbers | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of classes: ``(batch, classes)`` against ``(batch,)``, also for tokens and pixels.

    Args:
        prediction: Logits: ``(batch, classes)``, ``(batch, classes, height, width)`` or ``(batch, tokens, classes)``.
        target: The same shape without the classes: integers from 0, or -100 for missing labels. Or probabilities,
            ``(batch, classes)``: soft labels, which sum to 1; a row with NaN is missing.
        weight: The weight of each class, as in ``F.cross_entropy``.
        label_smoothing: The share of every label to spread over all classes.

    Raises:
        TrainingError: The shapes do not match, or the target is not an integer.
    """
    if target.is_floating_point() and prediction.shape != target.shape:
        raise TrainingError(
            "cross_entropy needs whole numbers as labels, or a probability for every class, not real numbers",
            hint="use bce, mse, huber or cosine",
        )
    weights = None if weight is None else _numbers(weight, prediction.device)
    classes = prediction.shape[1] if target.is_floating_point() else classes_second(prediction, target).shape[1]
    if weights is not None and len(weights) != classes:
        raise TrainingError(f"cross_entropy has {len(weights)} class weights for {classes} classes")
    options: dict[str, Any] = {"weight": weights, "label_smoothing": label_smoothing, "reduction": "none"}
    if target.is_floating_point():
        valid = present(target).all(-1)
        soft = target.where(valid[..., None], 0).float()
        return F.cross_entropy(prediction.float(), soft, **options).where(valid, 0)
    logits = classes_second(prediction, target)
    values = F.cross_entropy(logits.float(), target.long(), ignore_index=IGNORED, **options)
    sums = values.where(present(target), torch.zeros((), device=values.device)).reshape(len(target), -1).sum(1)
    return sums / _class_mass(target, weight).clamp(min=1e-12)


def check_soft_labels(target: Tensor, valid: Tensor) -> None:
    """Check that soft labels ``(batch, classes)`` are probabilities.

    Raises:
        TrainingError: Those of a sample that is ``valid`` do not sum to 1, as where several classes are true at once.
    """
    if bool((((target.sum(-1) - 1).abs() > SOFT_SUM) | (target < 0).any(-1)).logical_and(valid).any()):
        raise TrainingError(
            "cross_entropy needs labels of a sample that sum to 1, as probabilities do",
            where="train.objectives",
            hint="for several classes at once: problem_type: multi_label_classification in replace_head, or "
            "objectives: [{output: NAME, loss: bce}]",
        )


def _next_mass(target: Tensor, weight: Numbers | None = None, **options: Any) -> Tensor:
    return _class_mass(target[:, 1:], weight)


@counting(_next_mass)
def next_token(
    prediction: Tensor, target: Tensor, *, weight: Numbers | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of each token, predicted at the one before it, as in language modelling.

    Args:
        prediction: Logits ``(batch, tokens, vocabulary)``.
        target: The tokens ``(batch, tokens)``, or -100 for tokens to ignore.
        weight: The weight of each token of the vocabulary.
        label_smoothing: The share of every label to spread over the vocabulary.

    Raises:
        TrainingError: The shapes do not match.
    """
    _check_tokens("next_token", prediction, target)
    return cross_entropy(prediction[:, :-1], target[:, 1:], weight=weight, label_smoothing=label_smoothing)


@counting(_class_mass)
def masked(
    prediction: Tensor, target: Tensor, *, weight: Numbers | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of masked tokens, as for BERT (Devlin et al. 2019, section 3.1).

    Args:
        prediction: Logits ``(batch, tokens, vocabulary)``.
        target: The original tokens at masked positions ``(batch, tokens)``, -100 elsewhere.
        weight: The weight of each token of the vocabulary.
        label_smoothing: The share of every label to spread over the vocabulary.

    Raises:
        TrainingError: The shapes do not match.
    """
    _check_tokens("masked", prediction, target)
    return cross_entropy(prediction, target, weight=weight, label_smoothing=label_smoothing)


@counting(labelled_elements)
def bce(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Numbers | None = None,
    pos_weight: Numbers | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute binary cross-entropy from logits, for independent yes/no questions, ``(batch, …)`` against 0…1.

    Args:
        prediction: Logits.
        target: The share of yes, 0…1; NaN for missing labels.
        weight: The weight of each question.
        pos_weight: The weight of a yes, by question.
        label_smoothing: The share of every label to replace by one half.
    """
    device = prediction.device
    options = {
        name: _numbers(value, device)
        for name, value in (("weight", weight), ("pos_weight", pos_weight))
        if value is not None
    }
    smoothed = target * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else target
    return _elementwise(F.binary_cross_entropy_with_logits, prediction, smoothed, **options)


@counting(labelled_elements)
def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the squared error: ``(batch, …)`` against the same shape."""
    return _elementwise(F.mse_loss, prediction, target)


@counting(labelled_elements)
def huber(prediction: Tensor, target: Tensor, *, delta: float = 1.0) -> Tensor:
    """Compute Huber's loss (Huber 1964): ``(batch, …)`` against the same shape; linear from ``delta`` on."""
    return _elementwise(F.huber_loss, prediction, target, delta=delta)


@counting(_vector_mass)
def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute one minus the cosine between vectors: ``(batch, …, features)`` against the same shape.

    A vector with a missing element is ignored.
    """
    prediction, valid = align(prediction, target), present(target)
    values = 1 - F.cosine_similarity(prediction.float(), target.where(valid, 0).float(), dim=-1)
    return _mean_by_sample(values, valid.all(-1))


def _check_tokens(name: str, prediction: Tensor, target: Tensor) -> None:
    if prediction.ndim != 3 or prediction.shape[:2] != target.shape or target.is_floating_point():
        raise TrainingError(
            f"{name} takes predictions (batch, tokens, vocabulary) and whole numbers (batch, tokens), not "
            f"{tuple(prediction.shape)} and {str(target.dtype).removeprefix('torch.')} {tuple(target.shape)}"
        )


def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened distributions, ``(n, classes)`` each → ``(n,)``; 0 where they agree."""
    new = F.log_softmax(logits.float() / temperature, dim=-1)
    old = F.log_softmax(teacher.float() / temperature, dim=-1)
    return F.kl_div(new, old, reduction="none", log_target=True).sum(-1)


def classes_second(prediction: Tensor, target: Tensor) -> Tensor:
    """Move the classes of ``prediction`` to dimension 1.

    They are last in ``(batch, tokens, classes)`` and second in ``(batch, classes, height, width)``. A map of
    another size than the labels (transformers' networks for segmentation make a quarter of it) is scaled to theirs.

    Raises:
        TrainingError: ``prediction`` without its classes does not have the shape of ``target``.
    """
    if prediction.ndim == 3 and prediction.shape[:2] == target.shape:
        return prediction.movedim(-1, 1)
    if prediction.ndim >= 2 and (prediction.shape[0], *prediction.shape[2:]) == tuple(target.shape):
        return prediction
    if prediction.ndim == 4 and target.ndim == 3 and len(prediction) == len(target):
        return F.interpolate(prediction.float(), size=target.shape[1:], mode="bilinear", align_corners=False)
    raise TrainingError(
        f"predictions of shape {tuple(prediction.shape)} do not fit class labels of shape {tuple(target.shape)}"
    )


def align(prediction: Tensor, target: Tensor) -> Tensor:
    """Reshape ``prediction`` like ``target``: ``(batch, 1)`` also fits ``(batch,)``.

    Raises:
        TrainingError: The shapes differ; broadcasting would train on something else.
    """
    if prediction.shape == (*target.shape, 1):
        prediction = prediction.squeeze(-1)
    if prediction.shape != target.shape:
        raise TrainingError(
            f"predictions of shape {tuple(prediction.shape)} do not fit labels of shape {tuple(target.shape)}"
        )
    return prediction


def _elementwise(function: Callable[..., Tensor], prediction: Tensor, target: Tensor, **options: Any) -> Tensor:
    prediction, valid = align(prediction, target), present(target)
    values = function(prediction.float(), target.where(valid, 0).float(), reduction="none", **options)
    return _mean_by_sample(values, valid)


def _mean_by_sample(values: Tensor, valid: Tensor) -> Tensor:
    """Average ``values (batch, …)`` over the ``valid`` ones of each sample; 0 without any."""
    valid = valid.reshape(len(valid), -1)
    masked_values = values.reshape(len(values), -1).where(valid, torch.zeros((), device=values.device))
    return masked_values.sum(1) / valid.sum(1).clamp(min=1)


def _numbers(values: Numbers, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=device)


@hookimpl
def surgeon_losses() -> Mapping[str, Loss]:
    """Register the built-in losses."""
    return {
        "cross_entropy": cross_entropy,
        "next_token": next_token,
        "masked": masked,
        "bce": bce,
        "mse": mse,
        "huber": huber,
        "cosine": cosine,
        DETECTION_LOSS: detection,
    }
