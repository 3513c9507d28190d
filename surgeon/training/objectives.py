"""Outputs with names meet labels with names: one masked loss for each objective."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.errors import TrainingError, suggest
from surgeon.operation import Objective
from surgeon.training.losses import Loss, bce, classes_second, cross_entropy, present

Batch = Mapping[str, Tensor]
MAIN = ("logits", "out")
"""What a network's own prediction is called in transformers and, for segmentation, in torchvision."""


def named_outputs(output: Any) -> dict[str, Tensor]:
    """The tensors that a model returned, by name; a lone tensor is called ``logits``."""
    if isinstance(output, Tensor):
        return {"logits": output}
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        output = output._asdict()
    elif isinstance(output, Sequence):
        output = {str(position): value for position, value in enumerate(output)}
    if not isinstance(output, Mapping):
        raise TrainingError(f"the model returns a {type(output).__name__}, which holds no tensors by name")
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}


def takes_names(model: nn.Module, inputs: Sequence[str]) -> bool:
    """Whether the model's forward has a parameter for every input column by its name."""
    parameters = inspect.signature(model.forward).parameters
    return all(name in parameters for name in inputs)


def call_model(model: nn.Module, inputs: Batch, *, by_name: bool) -> dict[str, Tensor]:
    """Run ``model`` on the input columns, by keyword or in their order."""
    return named_outputs(model(**inputs) if by_name else model(*inputs.values()))


def default_objectives(outputs: Mapping[str, Tensor], given: Sequence[Objective]) -> list[Objective]:
    """Cross-entropy of the model's own prediction, unless ``given`` objectives already train it.

    Raises:
        TrainingError: Nothing is given, and no output is known for the model's own prediction.
    """
    main = next((name for name in MAIN if name in outputs), None)
    if main is None and len(outputs) == 1:
        main = next(iter(outputs))
    if main is None and not given:
        raise TrainingError(
            f"several outputs ({', '.join(outputs)}), and none of them is called {' or '.join(MAIN)}",
            where="train.objectives",
            hint="say which to train: objectives: [{output: NAME, loss: cross_entropy, label: labels}]",
        )
    if main is None or any(objective.output == main for objective in given):
        return []
    return [Objective(output=main, loss="cross_entropy", label="labels", weight=1.0)]


@dataclass(frozen=True)
class Target:
    """An objective that is ready to compute."""

    objective: Objective
    loss: Loss

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each sample ``(batch,)``, and which of them have a label ``(batch,)``."""
        target = batch[self.objective.label]
        valid = present(target).reshape(len(target), -1).any(1)
        safe = target.where(valid.reshape(-1, *[1] * (target.ndim - 1)), 0)
        values = self.loss(outputs[self.objective.output], safe)
        if values.shape != valid.shape:
            raise TrainingError(
                f"the loss {self.objective.loss!r} returned shape {tuple(values.shape)} "
                f"instead of one value for each of {len(valid)} samples"
            )
        return values.where(valid, 0), valid

    def scores(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor | None:
        """The share of a sample's labels that is predicted right ``(batch,)``; None where none can be right."""
        prediction, target = outputs[self.objective.output], batch[self.objective.label]
        if self.loss is cross_entropy:
            right = classes_second(prediction, target).argmax(1) == target
        elif self.loss is bce:
            right = (prediction.reshape(target.shape) > 0) == (target > 0.5)
        else:
            return None
        valid = present(target).reshape(len(target), -1)
        return (right.reshape(valid.shape) & valid).sum(1) / valid.sum(1).clamp(min=1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean of ``values`` over the ``valid``; a zero that still has a gradient where there is none."""
    return values.sum() / valid.sum().clamp(min=1)


def prepare(
    objectives: Sequence[Objective],
    losses: Mapping[str, Loss],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    classes: Mapping[str, int],
) -> list[Target]:
    """Check ``objectives`` against what the model returns and the data hold, before a step is made.

    Raises:
        TrainingError: An output, loss or label that does not exist, or a head with another number of classes
            than the data.
    """
    targets = []
    for objective in objectives:
        for kind, name, known in (
            ("output", objective.output, outputs),
            ("loss", objective.loss, losses),
            ("label", objective.label, batch),
        ):
            if name not in known:
                raise TrainingError(
                    f"no {kind} {name!r} (there are: {', '.join(known)})",
                    where=f"train.objectives: {kind}",
                    hint=suggest(name, known),
                )
        target = Target(objective, losses[objective.loss])
        with torch.no_grad():
            if target.loss is cross_entropy and objective.label in classes:
                _check_classes(objective, outputs, batch, classes[objective.label])
            target.losses(outputs, batch)
        targets.append(target)
    return targets


def _check_classes(objective: Objective, outputs: Mapping[str, Tensor], batch: Batch, classes: int) -> None:
    logits = classes_second(outputs[objective.output], batch[objective.label])
    if logits.shape[1] != classes:
        raise TrainingError(
            f"the output {objective.output!r} has {logits.shape[1]} classes and the data have {classes}",
            hint=f"give it a head that fits: replace_head: classes: {classes}",
        )
