"""Make the callbacks that a recipe names: the built-in early stopping, and those of plugins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.hooks import hookimpl
from surgeon.recipe.train_settings import CallbackSettings, TrainSettings

Factory = Callable[..., TrainerCallback]


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]
    """End training when a metric has not improved for some epochs, and restore the best weights.

    The metric is computed on the validation samples: those in the data, or held-out training samples
    (``validation_fraction``). The test samples are not used.

    Args:
        patience: The number of epochs without improvement after which training ends.
        metric: ``loss``, or ``OUTPUT_loss``, ``OUTPUT_accuracy`` or ``detections_map`` of an output.
        threshold: The least change that counts as an improvement.
    """

    def __init__(self, patience: int = 3, metric: str = "loss", threshold: float = 0.0) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience must be an integer of at least 1, not {patience!r}")
        super().__init__(early_stopping_patience=patience, early_stopping_threshold=threshold)
        self.metric = metric
        self.arguments = {
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "greater_is_better": higher_is_better(metric),
            "restore_callback_states_from_checkpoint": True,
        }

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, so that a resumed run continues counting."""
        arguments = {
            "patience": self.early_stopping_patience,
            "metric": self.metric,
            "threshold": self.early_stopping_threshold,
        }
        return {**super().state(), "args": arguments}

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **kwargs: Any,
    ) -> None:
        """Check whether the metric has improved."""
        name = f"eval_{(args.metric_for_best_model or self.metric).removeprefix('eval_')}"
        if name not in metrics:
            ends = ("_loss", "_accuracy", "_map")
            names = [metric.removeprefix("eval_") for metric in metrics if metric.endswith(ends)]
            raise TrainingError(
                f"early_stopping: unknown metric {name.removeprefix('eval_')!r}",
                where="train.callbacks",
                hint=suggest(name.removeprefix("eval_"), names) or f"available: {', '.join(names)}",
            )
        super().on_evaluate(args, state, control, metrics, **kwargs)


@hookimpl
def surgeon_callbacks() -> Mapping[str, Factory]:
    """Register the built-in callbacks."""
    return {"early_stopping": EarlyStopping}


def higher_is_better(metric: str) -> bool:
    """Return whether a higher value of a metric that training computes is better."""
    return metric.endswith(("accuracy", "map"))


def make_callbacks(
    settings: Sequence[str | CallbackSettings], factories: Mapping[str, Factory]
) -> list[TrainerCallback]:
    """Make the callbacks that a recipe names.

    Raises:
        TrainingError: A name or a setting is unknown, or a value is refused.
    """
    return [_make_callback(entry, factories, f"train.callbacks.{index}") for index, entry in enumerate(settings)]


def wanted_arguments(callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    """Collect the TrainingArguments that callbacks need, from their attribute ``arguments``."""
    return {name: value for callback in callbacks for name, value in dict(getattr(callback, "arguments", {})).items()}


def needs_validation(settings: TrainSettings, required: Mapping[str, Any]) -> bool:
    """Return whether training evaluates, or chooses by, samples that are not trained on.

    Args:
        settings: The recipe's ``train:`` section.
        required: The arguments that callbacks need.
    """
    arguments = {**required, **settings.arguments}
    return (
        str(arguments.get("eval_strategy", "no")) not in ("no", "None")
        or bool(arguments.get("load_best_model_at_end"))
        or str(arguments.get("lr_scheduler_type", "")) == "reduce_lr_on_plateau"
    )


def _make_callback(entry: str | CallbackSettings, factories: Mapping[str, Factory], where: str) -> TrainerCallback:
    name, options = (entry, {}) if isinstance(entry, str) else (entry.callback, entry.options)
    if name not in factories:
        raise TrainingError(
            f"unknown callback {name!r} (available: {', '.join(factories)})", where=where, hint=suggest(name, factories)
        )
    signature = inspect.signature(factories[name])
    try:
        signature.bind(**options)
    except TypeError as error:
        unknown = next((key for key in options if key not in signature.parameters), "")
        hint = (
            suggest(unknown, signature.parameters) or f"its settings are: {', '.join(signature.parameters) or 'none'}"
        )
        raise TrainingError(f"the callback {name!r}: {error}", where=where, hint=hint) from error
    try:
        callback = factories[name](**options)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"the callback {name!r}: {error}", where=where) from error
    if not isinstance(callback, TrainerCallback):
        raise TrainingError(f"the callback {name!r} is a {type(callback).__name__}, not a TrainerCallback", where=where)
    return callback
