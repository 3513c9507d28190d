"""Make the options of losses, with class weights as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from surgeon.data.combine import DOMAIN
from surgeon.data.labels import present
from surgeon.errors import TrainingError, suggest
from surgeon.families.registry import config_of
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Objective
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.column_values import classes_counted, column_of
from surgeon.training.losses import Loss, bce, cross_entropy, masked, next_token

WHERE = "train.class_weights"


class LossOptions:
    """Make the options of each objective's loss from its own options, ``class_weights`` and ``label_smoothing``.

    The last two apply to objectives of classes and questions, except domain classifiers and objectives with such an
    option.

    Args:
        settings: The recipe's ``train:`` section.
        splits: The data, whose training labels are counted for balanced weights.
        model: The network, whose config may name the classes.
        outputs: Its outputs.
    """

    def __init__(
        self, settings: TrainSettings, splits: Splits, model: nn.Module, outputs: Mapping[str, Tensor]
    ) -> None:
        self.settings = settings
        self.splits = splits
        self.model = model
        self.outputs = outputs
        self._used: set[str] = set()

    def __call__(self, objective: Objective, loss: Loss) -> Mapping[str, Any]:
        """Return the options of one objective.

        Raises:
            TrainingError: Weights do not fit the classes.
        """
        options = dict(objective.options)
        if loss not in (cross_entropy, next_token, masked, bce):
            return options
        key = "pos_weight" if loss is bce else "weight"
        if objective.label != DOMAIN:
            if self.settings.class_weights is not None and loss not in (next_token, masked):
                options.setdefault(key, self.settings.class_weights)
                self._used.add("class_weights")
            if self.settings.label_smoothing:
                options.setdefault("label_smoothing", self.settings.label_smoothing)
                self._used.add("label_smoothing")
        of_samples = loss is cross_entropy and self.outputs[objective.output].ndim == 2
        if of_samples and objective.mean == "samples" and options.get("weight") is not None:
            raise TrainingError(
                f"mean: samples divides each loss of {objective.output!r} by its class weight, so that weights have no "
                "effect",
                where=WHERE,
                hint="leave mean out, or the weights",
            )
        for name in ("weight", "pos_weight"):
            if options.get(name) is not None:
                options[name] = self._weights(objective, loss, options[name])
        return options

    def refuse_unused(self) -> None:
        """Refuse ``class_weights`` and ``label_smoothing`` that no objective takes.

        Raises:
            TrainingError: One is set, and all objectives are of values, tokens or a plugin's own losses.
        """
        for key in ("class_weights", "label_smoothing"):
            if getattr(self.settings, key) and key not in self._used:
                kinds = "classes or questions" if key == "class_weights" else "classes, tokens or questions"
                raise TrainingError(
                    f"{key} has no effect: no objective is of {kinds}", where=f"train.{key}", hint="leave it out"
                )

    def _weights(self, objective: Objective, loss: Loss, setting: Any) -> list[float]:
        output = self.outputs[objective.output]
        token = output.ndim == 3
        count = output.shape[-1] if token or output.ndim < 3 else output.shape[1]
        if setting == "balanced":
            return self._balanced(objective, loss, count)
        if isinstance(setting, Mapping):
            return self._by_name(objective, setting, count)
        if isinstance(setting, str) or not isinstance(setting, (list, tuple, Tensor)):
            raise TrainingError(
                f"class weights must be balanced, a list or a mapping of names, not {setting!r}", where=WHERE
            )
        weights = [float(weight) for weight in setting]
        if len(weights) != count:
            raise TrainingError(
                f"{len(weights)} class weights for the {count} classes of {objective.output!r}", where=WHERE
            )
        if any(not weight >= 0 or weight == float("inf") for weight in weights) or not any(weights):
            raise TrainingError("class weights must be at least 0, and not all 0", where=WHERE)
        return weights

    def _balanced(self, objective: Objective, loss: Loss, count: int) -> list[float]:
        if loss is bce:  # how many times rarer a yes is than a no, by question
            labels = column_of(self.splits.train, objective.label).float()
            labels = labels.reshape(len(labels), -1)
            valid = present(labels)
            positives = labels.nan_to_num().sum(0)
            constant = (positives == 0) | (positives == valid.sum(0))
            return ((valid.sum(0) - positives) / positives.clamp(min=1e-12)).masked_fill(constant, 1.0).tolist()
        counts = classes_counted(self.splits.train, objective.label, count)
        classes = counts.nonzero().flatten().numpy()
        if not len(classes):
            raise TrainingError(f"no sample has a label in {objective.label!r} to balance classes by", where=WHERE)
        weights = torch.ones(count)  # the weight of a class without samples has no effect
        # sklearn counts labels; listing each class with its count as a weight is the same
        balanced = compute_class_weight("balanced", classes=classes, y=np.repeat(classes, counts[classes].numpy()))
        weights[torch.as_tensor(classes)] = torch.as_tensor(balanced, dtype=torch.float32)
        return weights.tolist()

    def _by_name(self, objective: Objective, by_name: Mapping[Any, Any], count: int) -> list[float]:
        names = class_names(self.model, self.splits, objective.label, count)
        if names is None:
            raise TrainingError(
                f"the classes of {objective.output!r} have no names, so weights cannot be given by name",
                where=WHERE,
                hint=f"give a list of {count} weights, or balanced",
            )
        for name in by_name:
            if str(name) not in names:
                raise TrainingError(
                    f"unknown class {str(name)!r} (available: {', '.join(names)})",
                    where=WHERE,
                    hint=suggest(str(name), names),
                )
        chosen = {str(name): float(weight) for name, weight in by_name.items()}
        return self._weights(objective, cross_entropy, [chosen.get(name, 1.0) for name in names])


def class_names(model: nn.Module, splits: Splits, label: str, count: int) -> list[str] | None:
    """Return the class names of a label column, from the data or the network's config; None if neither has them."""
    named: Callable[..., Any] | Mapping[str, Any] | None = getattr(splits, "names", None)
    if isinstance(named, Mapping) and len(named.get(label, ())) == count:
        return [str(name) for name in named[label]]
    config = config_of(model)
    in_config = config.class_names() if config is not None else ()
    return list(in_config) if len(in_config) == count else None
