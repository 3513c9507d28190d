"""The transformers Trainer, with losses by objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, Trainer

from surgeon.training.data import Splits
from surgeon.training.objectives import Target, call_model, masked_mean, takes_names

METRICS = ("loss", "accuracy")
"""What is measured of every objective, in this order."""


class ObjectiveTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the weighted sum of ``targets``, each masked by its own labels.

    It logs the loss of every objective, and evaluates to ``eval_OUTPUT_loss`` and ``eval_OUTPUT_accuracy``.
    """

    def __init__(self, *, targets: Sequence[Target], splits: Splits, **kwargs: Any) -> None:
        super().__init__(train_dataset=splits.train, eval_dataset=splits.test, compute_metrics=self._metrics, **kwargs)
        self.targets = list(targets)
        self.splits = splits
        self.by_name = takes_names(self.model, splits.inputs)
        # Each loss is a mean over its batch, so accumulated batches must be averaged by the Trainer, also for a
        # model whose forward takes **kwargs, of which transformers would think that it scales its loss itself.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self._seen: dict[str, list[Tensor]] = {}
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)

    def measure(self) -> dict[str, float]:
        """Losses and accuracies on the test samples, by objective."""
        known = (f"{target.objective.output}_{what}" for target in self.targets for what in METRICS)
        metrics = self.evaluate()
        return {name: metrics[f"eval_{name}"] for name in known if f"eval_{name}" in metrics}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted sum of the objectives' losses of a batch, with the model's outputs if asked for."""
        outputs = self._call(model, inputs)
        total = torch.zeros((), device=next(iter(outputs.values())).device)
        for target in self.targets:
            loss = masked_mean(*target.losses(outputs, inputs))
            total = total + target.objective.weight * loss
            if model.training and len(self.targets) > 1:
                self._seen.setdefault(target.objective.output, []).append(loss.detach())
        return (total, outputs) if return_outputs else total

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Losses and scores of each sample ``(batch, 2 x objectives)``, NaN where it has no label.

        Whole predictions are not gathered: those of a segmentation network would fill the memory.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            columns = []
            for target in self.targets:
                values, valid = target.losses(outputs, inputs)
                scores = target.scores(outputs, inputs)
                for column in (values, torch.full_like(values, torch.nan) if scores is None else scores):
                    columns.append(column.float().masked_fill(~valid, torch.nan))
        table = torch.stack(columns, dim=1)
        return (loss, None, None) if prediction_loss_only else (loss, table, table.new_zeros(len(table)))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean loss of each objective since the last log, where there are several."""
        if "loss" in logs:
            for output, losses in self._seen.items():
                logs[f"{output}_loss"] = torch.stack(losses).mean().item()
            self._seen.clear()
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """No weight decay on biases and norms: whatever has one dimension, as in timm."""
        return [name for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith(".bias")]

    def _call(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        return call_model(model, {name: batch[name] for name in self.splits.inputs}, by_name=self.by_name)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        table = torch.as_tensor(prediction.predictions)
        metrics = {}
        for position, target in enumerate(self.targets):
            for offset, what in enumerate(METRICS):
                column = table[:, len(METRICS) * position + offset]
                if not column.isnan().all():
                    metrics[f"{target.objective.output}_{what}"] = column.nanmean().item()
        return metrics
