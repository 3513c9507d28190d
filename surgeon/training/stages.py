"""Freeze parts of a network until their epoch (gradual unfreezing)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surgeon.errors import TrainingError
from surgeon.interfaces.training import Stage
from surgeon.training.anatomy import Anatomy


class Unfreezing(TrainerCallback):  # type: ignore[misc]
    """Keep the parameters of each stage frozen until its epoch (gradual unfreezing, Howard & Ruder 2018).

    Until then they have no gradient, so that the optimizer neither steps nor decays them and has no state for them.
    Their state starts, with its own count of steps, when they first train; that of other parameters is kept. Norm
    layers of frozen stages keep their statistics. What an operation froze permanently stays frozen. Which stages are
    frozen depends on the epoch alone, so that a resumed run continues correctly.

    Raises:
        TrainingError: On creation: a site is in two stages, nothing trains at first, or training ends before a stage.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage], anatomy: Anatomy, epochs: float | None) -> None:
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.model = model
        self.stages: list[tuple[float, list[str]]] = []
        staged: set[str] = set()
        for stage in stages:
            names = anatomy.parameters(stage.sites) & trainable.keys()
            if not names:
                raise TrainingError(f"unfreeze: nothing in {', '.join(stage.sites)} can train: an operation froze it")
            if twice := sorted(names & staged):
                raise TrainingError(f"unfreeze: {twice[0]} is in two stages", hint="name every site in one")
            if epochs is not None and stage.epoch >= epochs:
                raise TrainingError(
                    f"unfreeze: {', '.join(stage.sites)} would wait until epoch {stage.epoch:g}, "
                    f"and training ends at {epochs:g}",
                    hint="train longer, or leave the stage out and freeze it",
                )
            staged |= names
            self.stages.append((stage.epoch, sorted(names)))
        if staged and not any(epoch == 0 for epoch, _ in self.stages) and not trainable.keys() - staged:
            raise TrainingError("unfreeze: every stage waits, so nothing trains at first", hint="start one at epoch 0")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Unfreeze the stages whose epoch has come."""
        for epoch, names in self.stages:
            self._let_train(names, (state.epoch or 0.0) >= epoch)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Unfreeze all stages, as before training."""
        for _, names in self.stages:
            self._let_train(names, True)

    def hold(self) -> None:
        """Put norm layers of frozen stages in eval mode; call this after putting the network in training mode."""
        for _, names in self.stages:
            frozen = [name for name in names if not self.model.get_parameter(name).requires_grad]
            for owner in {name.rpartition(".")[0] for name in frozen}:
                module = self.model.get_submodule(owner)
                if getattr(module, "running_mean", None) is not None:
                    module.eval()

    def _let_train(self, names: Sequence[str], trains: bool) -> None:
        for name in names:
            self.model.get_parameter(name).requires_grad_(trains)
