"""Parts of a network that wait before they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surgeon.errors import TrainingError
from surgeon.interfaces.training import Stage
from surgeon.training.anatomy import Anatomy


class Unfreezing(TrainerCallback):  # type: ignore[misc]
    """Holds the parameters of each stage frozen until its epoch (gradual unfreezing, Howard & Ruder 2018).

    While they wait they have no gradient, so that the optimizer neither steps nor decays them and holds no state
    of them: that begins, with its own count of steps, when they first train, and that of the others goes on.
    Norms that wait keep their statistics. What an operation froze for good stays frozen, and what waits is known
    from the epoch alone, so that a resumed run goes on where it was.

    Raises:
        TrainingError: On creation: a site waits in two stages, nothing trains at first, or a stage never comes.
    """

    def __init__(self, model: nn.Module, stages: Sequence[Stage], anatomy: Anatomy, epochs: float | None) -> None:
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.model = model
        self.stages: list[tuple[float, list[str]]] = []
        seen: set[str] = set()
        for stage in stages:
            names = anatomy.parameters(stage.sites) & trainable.keys()
            if not names:
                raise TrainingError(f"unfreeze: nothing in {', '.join(stage.sites)} can train: it is frozen for good")
            if twice := sorted(names & seen):
                raise TrainingError(f"unfreeze: {twice[0]} waits in two stages", hint="name every site in one")
            if epochs is not None and stage.epoch >= epochs:
                raise TrainingError(
                    f"unfreeze: {', '.join(stage.sites)} would wait until epoch {stage.epoch:g}, "
                    f"and training ends at {epochs:g}",
                    hint="train longer, or leave the stage out and freeze it",
                )
            seen |= names
            self.stages.append((stage.epoch, sorted(names)))
        if seen and not any(epoch == 0 for epoch, _ in self.stages) and not trainable.keys() - seen:
            raise TrainingError("unfreeze: every stage waits, so that nothing trains at first", hint="begin one at 0")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let train what the epoch has come for."""
        for epoch, names in self.stages:
            self._let_train(names, (state.epoch or 0.0) >= epoch)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave everything as it was handed in: to train."""
        for _, names in self.stages:
            self._let_train(names, True)

    def hold(self) -> None:
        """Keep the statistics of norms that wait: to be called once the network is in training mode."""
        for _, names in self.stages:
            waiting = [name for name in names if not self.model.get_parameter(name).requires_grad]
            for owner in {name.rpartition(".")[0] for name in waiting}:
                module = self.model.get_submodule(owner)
                if getattr(module, "running_mean", None) is not None:
                    module.eval()

    def _let_train(self, names: Sequence[str], trains: bool) -> None:
        for name in names:
            self.model.get_parameter(name).requires_grad_(trains)
