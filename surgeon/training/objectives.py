"""Match named outputs with named labels, and compute one masked loss for each objective."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.data.labels import present
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.composite import composite_of, has_part
from surgeon.interfaces.training import Objective
from surgeon.training.losses import Loss, bce, classes_second, cross_entropy, masked, next_token

Batch = Mapping[str, Tensor]
MAIN = ("logits", "out")
"""The names of a network's main output in transformers and, for segmentation, in torchvision."""


def named_outputs(output: Any, lone: str = MAIN[0]) -> dict[str, Tensor]:
    """Name the tensors that a model returned; a lone tensor is called ``lone``."""
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
        """Read it from ``model`` itself: what wraps it later (DDP, torch.compile) hides the signature."""
        return cls(tuple(inputs), set(inputs) <= keywords_of(model), composite_of(model).lone_output or MAIN[0])

    def __call__(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Run ``model``, or what wraps it, on the input columns of ``batch``."""
        if self.by_name:
            return named_outputs(model(**{name: batch[name] for name in self.inputs}), self.lone)
        return named_outputs(model(*(batch[name] for name in self.inputs)), self.lone)


def keywords_of(model: nn.Module) -> set[str]:
    """List the arguments that a network's forward takes by name.

    They are those of its signature, those that a pre-hook of one of its parts reads (the stem that a sample goes
    through), and, where the signature ends in ``**kwargs``, those that all parts take which it passes them on to.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    facts = composite_of(model)
    names.update(facts.keywords)
    for hook in model._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, nn.Module):
            names.update(composite_of(owner).keywords)
    parts = [model.get_submodule(entry.site) for entry in facts.shared if has_part(model, entry.site)]
    if parts and any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= set.intersection(*(keywords_of(part) for part in parts))
    return names


def default_objectives(outputs: Mapping[str, Tensor], given: Sequence[Objective]) -> list[Objective]:
    """Return cross-entropy of the model's main output, unless ``given`` objectives already train it.

    An output without a gradient does not count, because all that makes it is frozen: that of an earlier column.

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
        return self.loss in (cross_entropy, next_token, masked)

    def labels(self, batch: Batch) -> Tensor:
        """The labels, each at the place of its prediction: the next token's for ``next_token``."""
        target = batch[self.objective.label]
        return target[:, 1:] if self.loss is next_token else target

    def pair(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The predictions and their labels, place by place."""
        prediction = outputs[self.objective.output]
        return (prediction[:, :-1] if self.loss is next_token else prediction), self.labels(batch)

    def labelled(self, batch: Batch) -> Tensor:
        """Mark the samples that have a label, or a part of one ``(batch,)``."""
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
        """Compute the loss of each sample ``(batch,)`` and which samples have a label ``(batch,)``."""
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
        """Compute the share of a sample's labels predicted right ``(batch,)``; None if the loss has no such notion."""
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
    """Average ``values`` over the ``valid``; where there are none, a zero that still has a gradient."""
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
        for kind, name, available in (
            ("output", objective.output, outputs),
            ("loss", objective.loss, losses),
            ("label", objective.label, batch),
        ):
            if name not in available:
                raise TrainingError(
                    f"no {kind} {name!r} (there are: {', '.join(available)})",
                    where=f"train.objectives: {kind}",
                    hint=suggest(name, available),
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
