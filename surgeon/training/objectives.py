"""Outputs with names meet labels with names: one masked loss for each objective."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import present
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.training import Objective
from surgeon.nn.grafts import Grafted
from surgeon.nn.progressive import ProgressiveNetwork
from surgeon.nn.stems import ARGUMENT, stem_names
from surgeon.training.losses import Loss, bce, classes_second, cross_entropy, next_token

Batch = Mapping[str, Tensor]
MAIN = ("logits", "out")
"""What a network's own prediction is called in transformers and, for segmentation, in torchvision."""


def named_outputs(output: Any, lone: str = MAIN[0]) -> dict[str, Tensor]:
    """The tensors that a model returned, by name; a lone tensor is called ``lone``."""
    if isinstance(output, Tensor):
        return {lone: output}
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        output = output._asdict()
    elif isinstance(output, Sequence):
        output = {str(position): value for position, value in enumerate(output)}
    if not isinstance(output, Mapping):
        raise TrainingError(f"the model returns a {type(output).__name__}, which holds no tensors by name")
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Call:
    """How a model is called with a batch, and what its outputs are called."""

    inputs: tuple[str, ...]
    """The columns of the batch that it takes."""
    by_name: bool
    """Whether they are passed by keyword; in their order otherwise."""
    lone: str
    """The name of the output of a model that returns one tensor."""

    @classmethod
    def of(cls, model: nn.Module, inputs: Sequence[str]) -> Call:
        """Find out from ``model`` itself: what wraps it later (DDP, torch.compile) no longer tells."""
        networks = model.columns if isinstance(model, ProgressiveNetwork) else [model]
        parameters = [
            {*inspect.signature(network.forward).parameters, *([ARGUMENT] if stem_names(network) else [])}
            for network in networks
        ]  # which stem a sample goes through is heard by a hook, not by the forward itself
        by_name = all(name in each for name in inputs for each in parameters)
        return cls(tuple(inputs), by_name, _lone_output(model))

    def __call__(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Run ``model``, or what wraps it, on the input columns of ``batch``."""
        if self.by_name:
            return named_outputs(model(**{name: batch[name] for name in self.inputs}), self.lone)
        return named_outputs(model(*(batch[name] for name in self.inputs)), self.lone)


def _lone_output(model: nn.Module) -> str:
    """A branch that is all that a network returns comes as a plain tensor, and keeps its name."""
    if isinstance(model, Grafted) and model.network_output is None and len(model.grafts) == 1:
        return str(next(iter(model.grafts.keys())))
    return MAIN[0]


def default_objectives(outputs: Mapping[str, Tensor], given: Sequence[Objective]) -> list[Objective]:
    """Cross-entropy of the model's own prediction, unless ``given`` objectives already train it.

    An output without a gradient, of which everything is frozen, is not to be trained: an earlier column's, say.

    Raises:
        TrainingError: No output has a gradient; or nothing is given, and which output is the model's own
            prediction is not known.
    """
    trained = [name for name, output in outputs.items() if output.requires_grad]
    main = next((name for name in MAIN if name in trained), None)
    if main is None and len(trained) == 1:
        main = trained[0]
    if not trained:
        raise TrainingError(
            f"no gradient reaches an output ({', '.join(outputs)}): what trains plays no part in them",
            hint="see what trains: surgeon plan RECIPE MODEL",
        )
    if main is None and not given:
        raise TrainingError(
            f"several outputs ({', '.join(trained)}), and none of them is called {' or '.join(MAIN)}",
            where="train.objectives",
            hint="say which to train: objectives: [{output: NAME, loss: cross_entropy, label: labels}]",
        )
    if main is None or any(objective.output == main for objective in given):
        return []
    return [Objective(output=main, loss="cross_entropy", label="labels", weight=1.0)]


@dataclass(frozen=True)
class Target:
    """An objective that is ready to compute.

    Attributes:
        objective: What it trains.
        loss: The loss by the objective's name.
        options: What the loss is given beside prediction and target, with class weights as numbers.
    """

    objective: Objective
    loss: Loss
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_classes(self) -> bool:
        """Whether it predicts classes: of samples, tokens or pixels."""
        return self.loss in (cross_entropy, next_token)

    def labels(self, batch: Batch) -> Tensor:
        """The labels, each at the place of its prediction: the next token's for ``next_token``."""
        target = batch[self.objective.label]
        return target[:, 1:] if self.loss is next_token else target

    def pair(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The predictions and their labels, place by place."""
        prediction = outputs[self.objective.output]
        return (prediction[:, :-1] if self.loss is next_token else prediction), self.labels(batch)

    def labelled(self, batch: Batch) -> Tensor:
        """Which samples have a label, or a part of one ``(batch,)``."""
        target = batch[self.objective.label]
        return present(target).reshape(len(target), -1).any(1)

    def mass(self, batch: Batch) -> Tensor:
        """How much the loss of each sample counts in the mean over a batch ``(batch,)``, 0 where it has no label.

        That is the number of its labelled elements, or the sum of their class weights; 1 for a loss that says nothing
        of it, and for ``mean: samples``.
        """
        target, valid = batch[self.objective.label], self.labelled(batch)
        count = getattr(self.loss, "mass", None) if self.objective.mean == "elements" else None
        return valid.float() if count is None else count(target, **self.options)

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each sample ``(batch,)``, and which of them have a label ``(batch,)``."""
        target, valid = batch[self.objective.label], self.labelled(batch)
        safe = target.where(valid.reshape(-1, *[1] * (target.ndim - 1)), 0)
        values = self.loss(outputs[self.objective.output], safe, **self.options)
        if values.shape != valid.shape:
            raise TrainingError(
                f"the loss {self.objective.loss!r} returned shape {tuple(values.shape)} "
                f"instead of one value for each of {len(valid)} samples"
            )
        return values.where(valid, 0), valid

    def scores(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor | None:
        """The share of a sample's labels that is predicted right ``(batch,)``; None where none can be right."""
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
    """The mean of ``values`` over the ``valid``; a zero that still has a gradient where there is none."""
    return values.sum() / valid.sum().clamp(min=1)


def prepare(
    objectives: Sequence[Objective],
    losses: Mapping[str, Loss],
    outputs: Mapping[str, Tensor],
    batch: Batch,
    classes: Mapping[str, int],
    options: Callable[[Objective, Loss], Mapping[str, Any]] | None = None,
) -> list[Target]:
    """Check ``objectives`` against what the model returns and the data hold, before a step is made.

    Args:
        objectives: The losses.
        losses: Those that plugins registered, by name.
        outputs: What the model returns for ``batch``.
        batch: A small one.
        classes: The number of classes by label column.
        options: Makes the options of a loss: class weights as numbers; those of the objective if left out.

    Raises:
        TrainingError: An output, loss or label that does not exist, an output that cannot be trained, or a head
            with another number of classes than the data.
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
        if objective.weight and not outputs[objective.output].requires_grad:
            raise TrainingError(
                f"no gradient reaches the output {objective.output!r}: all that makes it is frozen",
                where="train.objectives: output",
                hint="weight: 0 measures it without training it",
            )
        loss = losses[objective.loss]
        check_options(objective, loss)
        target = Target(objective, loss, options(objective, loss) if options else dict(objective.options))
        with torch.no_grad():
            if target.loss is cross_entropy and objective.label in classes:
                _check_classes(objective, outputs, batch, classes[objective.label])
            target.losses(outputs, batch)
        targets.append(target)
    return targets


def check_options(objective: Objective, loss: Loss) -> None:
    """Refuse options that a loss does not take.

    Raises:
        TrainingError: Naming the first, and those that there are.
    """
    parameters = inspect.signature(loss).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [p.name for p in list(parameters)[2:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in objective.options:
        if name not in names:
            raise TrainingError(
                f"the loss {objective.loss!r} takes no option {name!r} (there are: {', '.join(names) or 'none'})",
                where="train.objectives: options",
                hint=suggest(name, names),
            )


def _check_classes(objective: Objective, outputs: Mapping[str, Tensor], batch: Batch, classes: int) -> None:
    logits = classes_second(outputs[objective.output], batch[objective.label])
    if logits.shape[1] != classes:
        raise TrainingError(
            f"the output {objective.output!r} has {logits.shape[1]} classes and the data have {classes}",
            hint=f"give it a head that fits: replace_head: classes: {classes}",
        )
