"""Match named outputs with named labels, and compute one masked loss for each objective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import present
from surgeon.data.network import CLASS_LOSS, SIZES
from surgeon.errors import PluginError, TrainingError, suggest
from surgeon.interfaces.offers import signature_of
from surgeon.interfaces.returned import refuse_return
from surgeon.interfaces.training import Objective
from surgeon.training.calls import MAIN, Batch, Call
from surgeon.training.detection import DetectorCall, detection
from surgeon.training.losses import Loss, bce, check_soft_labels, classes_second, cross_entropy, masked, next_token

AUX = "aux"
QUERIES = {"masks_queries_logits", "pred_masks"}
"""Outputs of MaskFormer's kin and of DETR's segmenters: masks for queries."""


def call_of(model: nn.Module, inputs: Sequence[str]) -> Call:
    """Return how to call ``model``; read before wrappers (DDP, torch.compile) hide its signature."""
    return DetectorCall.of_detector(model, inputs) if SIZES in inputs else Call.of(model, inputs)


def default_objectives(
    outputs: Mapping[str, Tensor], objectives: Sequence[Objective], loss: str = CLASS_LOSS
) -> list[Objective]:
    """Return ``loss`` of the model's main output, unless ``objectives`` already train it.

    An output without a gradient does not count, because everything that computes it is frozen, as in an earlier column.

    Raises:
        TrainingError: No output has a gradient; or no objective is given and several outputs could be
            the main one.
    """
    trained = [name for name, output in outputs.items() if output.requires_grad]
    main = next((name for name in MAIN if name in trained), None)
    if main is None and len(trained) == 1:
        main = trained[0]
    if not trained:
        raise TrainingError(
            f"no gradient reaches an output ({', '.join(outputs)}): the trained parameters do not affect them",
            hint="see which parameters are trained: surgeon plan RECIPE MODEL",
        )
    if main is None and not objectives:
        refuse_queries(outputs)
        raise TrainingError(
            f"several outputs ({', '.join(trained)}), and none of them is called {' or '.join(MAIN)}",
            where="train.objectives",
            hint="choose one: objectives: [{output: NAME, loss: cross_entropy, label: labels}]",
        )
    if main is None or any(objective.output == main for objective in objectives):
        return []
    defaults = [Objective(output=main, loss=loss, label="labels", weight=1.0)]
    if main == MAIN[1] and AUX in trained and outputs[AUX].shape == outputs[main].shape:
        # torchvision's networks for segmentation learn by both, as its own recipes train them
        defaults.append(Objective(output=AUX, loss="cross_entropy", label="labels", weight=0.5))
    return defaults


def refuse_queries(outputs: Iterable[str]) -> None:
    """Refuse a network whose loss matches its masks with objects: no objective does.

    Raises:
        TrainingError: One of its outputs is of such masks.
    """
    if QUERIES & set(outputs):
        raise TrainingError(
            "the network predicts masks for queries, whose loss matches them with objects, and surgeon trains "
            "segmentation by the class of each pixel",
            where="train",
            hint="use a network with logits for each pixel (SegFormer, UPerNet, DeepLab), or train this one with "
            "transformers after surgeon apply --no-train",
        )


@dataclass(frozen=True)
class Target:
    """An objective with its loss function and options.

    Attributes:
        objective: The objective.
        loss: The loss function.
        options: Keyword arguments of the loss, with class weights as numbers.
        kept: Whether all predictions are kept for a metric, though the loss has no metrics of its own.
    """

    objective: Objective
    loss: Loss
    options: Mapping[str, Any] = field(default_factory=dict)
    kept: bool = False

    @property
    def of_classes(self) -> bool:
        """Whether it predicts classes: of samples, tokens or pixels."""
        return self.loss in (cross_entropy, next_token, masked)

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels, aligned with predictions: shifted for ``next_token``."""
        target = batch[self.objective.label]
        return target[:, 1:] if self.loss is next_token else target

    def pair(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return predictions and labels, aligned."""
        prediction = outputs[self.objective.output]
        return (prediction[:, :-1] if self.loss is next_token else prediction), self.labels(batch)

    def labelled(self, batch: Batch) -> Tensor:
        """Return which samples have a label, at least in part, ``(batch,)``."""
        target = batch[self.objective.label]
        if self.loss is detection:  # a picture without boxes is of the background
            return torch.ones(len(target), dtype=torch.bool, device=target.device)
        return present(target).reshape(len(target), -1).any(1)

    def mass(self, batch: Batch) -> Tensor:
        """Return the weight of each sample's loss in the mean over a batch ``(batch,)``, 0 without a label.

        It is the number of labelled elements, or the sum of their class weights; 1 for a loss without ``mass``, and for
        ``mean: samples``.
        """
        target, valid = batch[self.objective.label], self.labelled(batch)
        count = getattr(self.loss, "mass", None) if self.objective.mean == "elements" else None
        if count is None:
            return valid.float()
        mass = count(target, **self.options)
        if not isinstance(mass, Tensor) or mass.shape != valid.shape:
            raise self._bad_return("mass", mass, f"a tensor of shape ({len(valid)},), how much each sample counts")
        return mass

    def _bad_return(self, subject: str, value: Any, expected: str) -> PluginError:
        name = f"the loss {self.objective.loss!r}"
        hint = None
        if isinstance(value, Tensor) and value.ndim == 0:
            hint = "take the mean over all dimensions but the first: reduction='none', then .flatten(1).mean(1)"
        return refuse_return(self.loss, f"{subject} of {name}" if subject == "mass" else name, expected, value, hint)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of each sample ``(batch,)``, and which samples have a label ``(batch,)``."""
        target, valid = batch[self.objective.label], self.labelled(batch)
        if self.loss is cross_entropy and target.ndim == 2 and target.is_floating_point():
            check_soft_labels(target, valid & present(target).all(-1))
        safe = target.where(valid.reshape(-1, *[1] * (target.ndim - 1)), 0)
        values = self.loss(outputs[self.objective.output], safe, **self.options)
        if not isinstance(values, Tensor) or values.shape != valid.shape or not values.is_floating_point():
            raise self._bad_return("returned", values, f"a tensor of shape ({len(valid)},), one value for each sample")
        return values.where(valid, 0), valid

    def scores(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor | None:
        """Return the share of correct labels by sample ``(batch,)``; None if the loss has no such notion."""
        prediction, target = self.pair(outputs, batch)
        if self.of_classes:
            if target.is_floating_point():
                return (prediction.argmax(1) == target.argmax(1)).float()
            right = classes_second(prediction, target).argmax(1) == target
        elif self.loss is bce:
            right = (prediction.reshape(target.shape) > 0) == (target > 0.5)
        else:
            return None
        valid = present(target).reshape(len(target), -1)
        return (right.reshape(valid.shape) & valid).sum(1) / valid.sum(1).clamp(min=1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Average ``values`` over the ``valid`` ones; without any, return a zero with a gradient."""
    return values.sum() / valid.sum().clamp(min=1)


def prepare(
    objectives: Sequence[Objective],
    losses: Mapping[str, Loss],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    classes: Mapping[str, int],
    options: Callable[[Objective, Loss], Mapping[str, Any]] | None = None,
) -> list[Target]:
    """Check ``objectives`` against the model's outputs and the data, before the first step.

    Args:
        objectives: The objectives.
        losses: The registered losses by name.
        outputs: The outputs of the model for ``batch``.
        batch: A small batch.
        classes: The number of classes by label column.
        options: Makes the options of a loss, with class weights as numbers. Default: the objective's options.

    Raises:
        TrainingError: An output, loss or label does not exist, an output cannot be trained, or a head has another
            number of classes than the data.
    """
    targets = []
    for objective in objectives:
        for kind, name, available in (
            ("output", objective.output, outputs),
            ("loss", objective.loss, losses),
            ("label", objective.label, batch),
        ):
            if name not in available:
                raise TrainingError(
                    f"unknown {kind} {name!r} (available: {', '.join(available)})",
                    where=f"train.objectives: {kind}",
                    hint=suggest(name, available),
                )
        if objective.weight and not outputs[objective.output].requires_grad:
            raise TrainingError(
                f"no gradient reaches the output {objective.output!r}: everything that computes it is frozen",
                where="train.objectives: output",
                hint="use weight: 0 to evaluate it without training it",
            )
        loss = losses[objective.loss]
        check_options(objective, loss)
        target = Target(objective, loss, options(objective, loss) if options else dict(objective.options))
        with torch.no_grad():
            if target.loss is cross_entropy and objective.label in classes:
                _check_classes(objective, outputs, batch, classes[objective.label])
            target.losses(outputs, batch)
            target.mass(batch)
        targets.append(target)
    return targets


def check_options(objective: Objective, loss: Loss) -> None:
    """Refuse options that a loss does not have.

    Raises:
        TrainingError: An option is unknown; the error lists the available ones.
    """
    parameters = signature_of(loss).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [p.name for p in list(parameters)[2:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in objective.options:
        if name not in names:
            raise TrainingError(
                f"the loss {objective.loss!r} takes no option {name!r} (available: {', '.join(names) or 'none'})",
                where="train.objectives: options",
                hint=suggest(name, names),
            )


def _check_classes(objective: Objective, outputs: Mapping[str, Tensor], batch: Batch, classes: int) -> None:
    logits = classes_second(outputs[objective.output], batch[objective.label])
    if logits.shape[1] != classes:
        raise TrainingError(
            f"the output {objective.output!r} has {logits.shape[1]} classes, but the data have {classes}",
            hint=f"add a head that fits: replace_head: classes: {classes}",
        )
