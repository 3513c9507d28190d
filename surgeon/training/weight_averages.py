"""Average weights over training with torch.optim.swa_utils: exponentially (EMA) or over the last epochs (SWA)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surgeon.recipe.train_settings import AverageSettings
from surgeon.training.calls import Call


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Average all trainable weights, and put the average into the network when training ends.

    ``ema``: in every step, the average keeps the share ``decay`` (Polyak & Juditsky 1992); in the first steps less,
    ``(1 + n) / (10 + n)``, so that a short run does not average its start. Statistics of norms are averaged too.
    ``swa``: the mean of the weights at the ends of epochs from ``start`` on (Izmailov et al. 2018, algorithm 1);
    statistics of norms are then recomputed on the training samples.

    Averages of bfloat16 and float16 weights are kept in float32, since a step of an average is mostly smaller than
    their rounding, and are cast once, when they are put into the network.

    Args:
        model: The network, unwrapped.
        settings: The recipe's ``average:``.
        call: Calls the network with a batch.
    """

    def __init__(self, model: nn.Module, settings: AverageSettings, call: Call) -> None:
        self.model = model
        self.settings = settings
        self.call = call
        self.count = torch.zeros((), dtype=torch.int64)
        self.averages = {name: _wide(tensor.detach()).clone() for name, tensor in self._current().items()}
        self.finished = False

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save in a checkpoint."""
        return {"average_count": self.count, **{f"average.{name}": value for name, value in self.averages.items()}}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the exponential average with the weights of this step."""
        if self.settings.kind == "ema":
            self._update()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the mean with the weights at the end of a late epoch."""
        late = state.global_step >= self.settings.start * state.max_steps
        if self.settings.kind == "swa" and (late or control.should_training_stop):
            self._update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the average into the network."""
        if not self.count:
            warnings.warn(
                f"average: {self.settings.kind} has averaged nothing, because training ended before its start; the "
                "weights are those of the last step",
                stacklevel=2,
            )
            return
        self._copy(self.averages)
        self.finished = True
        loader = kwargs.get("train_dataloader")
        if self.settings.kind == "swa" and loader is not None:
            update_bn(loader, _OnBatches(self.model, self.call))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put an exponential average into the network for the context, so that evaluation uses it.

        A mean over epochs is not used, because its norm statistics are computed only when training has ended.

        """
        if not self.count or self.finished or self.settings.kind == "swa":
            yield
            return
        now = {name: tensor.detach().clone() for name, tensor in self._current().items()}
        self._copy(self.averages)
        try:
            yield
        finally:
            self._copy(now)

    @torch.no_grad()
    def _update(self) -> None:
        current = self._current()
        self.averages = {name: value.to(current[name].device) for name, value in self.averages.items()}
        number = int(self.count)
        for names in _groups(current):
            old, new = [self.averages[name] for name in names], [_wide(current[name].detach()) for name in names]
            if not number:
                for value, latest in zip(old, new, strict=True):
                    value.copy_(latest)
            elif self.settings.kind == "ema":
                decay = min(self.settings.decay, (1 + number) / (10 + number))
                get_ema_multi_avg_fn(decay)(old, new, number)  # type: ignore[no-untyped-call]
            else:
                get_swa_multi_avg_fn()(old, new, number)  # type: ignore[no-untyped-call]
        self.count += 1

    def _current(self) -> dict[str, Tensor]:
        """Return the trainable parameters and the statistics of norms."""
        tensors: dict[str, Tensor] = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        for name, buffer in self.model.named_buffers():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                tensors[name] = buffer
        # parameters that are unfrozen later have an average from the beginning
        names = getattr(self, "averages", None) or tensors
        parameters = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {name: parameters[name] for name in names}

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, tensor in self._current().items():
            tensor.copy_(values[name])


def _groups(tensors: dict[str, Tensor]) -> list[list[str]]:
    """Return the names of tensors to average in one call: those of a dtype, but each low-precision one alone.

    The latter are copied to float32, and a copy of the whole network at once could fill the memory.
    """
    groups: dict[torch.dtype | str, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(name if _is_low(tensor) else tensor.dtype, []).append(name)
    return list(groups.values())


def _wide(tensor: Tensor) -> Tensor:
    """Convert floats of less than 32 bits to float32."""
    return tensor.float() if _is_low(tensor) else tensor


def _is_low(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() < 4


class _OnBatches(nn.Module):
    """Adapt a network to take a whole batch, as :func:`update_bn` calls it."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        self.call = call

    def forward(self, batch: dict[str, Tensor]) -> Any:
        """Run the network on its columns of ``batch``."""
        device = next(self.model.parameters()).device
        return self.call(self.model, {name: column.to(device) for name, column in batch.items()})
