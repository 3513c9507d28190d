"""Stop training at the first loss, gradient norm or weight that is not a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from surgeon.errors import TrainingError


class FiniteGuard(TrainerCallback):  # type: ignore[misc]
    """Raise before the optimizer steps, so that the network keeps its last finite weights.

    With fp16, non-finite gradients are normal: the scaler skips the step and lowers the scale. Then only losses and
    weights are checked.

    Args:
        model: The network, unwrapped.
        args: The arguments of the run, for the location of checkpoints and for suggestions.
    """

    def __init__(self, model: nn.Module, args: TrainingArguments) -> None:
        self.model = model
        self.args = args
        self.norm: Any = None
        self.watching = True
        self.rate = args.learning_rate

    def check_loss(self, total: torch.Tensor, parts: Mapping[str, torch.Tensor], state: TrainerState) -> None:
        """Check the loss of a batch; ``parts`` are its summands.

        Raises:
            TrainingError: The loss is not finite.
        """
        if not self.watching or math.isfinite(total.item()):
            return
        bad = [name for name, value in parts.items() if not math.isfinite(value.item())]
        subject = f"the loss of {', '.join(bad)}" if bad else "the loss"
        raise self._error(f"{subject} is {total.item()}", state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the norm of the gradients."""
        if args.fp16:
            return
        norm, self.norm = self.norm, None
        if norm is None:  # older Trainers compute it only for clipping
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients) if gradients else 0.0
        if not math.isfinite(float(norm)):
            bad = [name for name, p in self.model.named_parameters() if p.grad is not None and not finite(p.grad)]
            of = f" (first in {bad[0]})" if bad else ""
            raise self._error(f"the norm of the gradients is {float(norm)}{of}", state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the learning rate for messages."""
        optimizer = kwargs.get("optimizer")
        if optimizer is not None and optimizer.param_groups:
            self.rate = max(float(group["lr"]) for group in optimizer.param_groups)

    def check_weights(self, state: TrainerState) -> None:
        """Check every trained weight before it is saved or returned.

        Raises:
            TrainingError: A weight is not finite.
        """
        bad = [name for name, p in self.model.named_parameters() if p.requires_grad and not finite(p)]
        if bad:
            raise self._error(f"{bad[0]} has values that are not finite", state)

    def _error(self, problem: str, state: TrainerState) -> TrainingError:
        last = get_last_checkpoint(self.args.output_dir) if Path(self.args.output_dir).is_dir() else None
        checkpoint_hint = f"; the last good checkpoint is {last}" if last else ""
        half = "bf16 in place of fp16, " if self.args.fp16 else ""
        smaller = f"a smaller learning_rate than {self.args.learning_rate:g}"
        return TrainingError(
            f"training diverged at step {state.global_step + 1} of {state.max_steps} "
            f"(epoch {state.epoch or 0.0:.2f}): {problem}, at a learning rate of {float(self.rate):.3g}",
            where="train.learning_rate",
            hint=f"try {half}{smaller}, arguments: {{warmup_steps: 0.1}}, or check the data for values that are "
            f"not finite{checkpoint_hint}",
        )


def finite(tensor: torch.Tensor) -> bool:
    """Return whether every value is finite."""
    return bool(torch.isfinite(tensor.detach()).all())
