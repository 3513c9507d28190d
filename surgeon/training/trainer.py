"""The transformers Trainer, with losses by objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import Sampler
from transformers import EvalPrediction, PrinterCallback, ProgressCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_optimizer import is_optimizer_factory

from surgeon.data.combine import DOMAIN
from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.interfaces.training import Term
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.base_trainer import BaseTrainer
from surgeon.training.batch_mixes import Mixing
from surgeon.training.calls import Batch
from surgeon.training.domains import DomainFeed, SeparateNorms
from surgeon.training.features import FeatureCache
from surgeon.training.finite import FiniteGuard
from surgeon.training.metrics import means, rows, total_loss
from surgeon.training.objectives import Target, call_of, masked_mean
from surgeon.training.packed_rows import refuse_other_sizes
from surgeon.training.parameter_groups import parameter_groups
from surgeon.training.samplers import make_sampler
from surgeon.training.stages import Unfreezing
from surgeon.training.task_weights import FixedWeights, UncertaintyWeights
from surgeon.training.test_views import TestViews
from surgeon.training.weight_averages import Averaging
from surgeon.training.wrappers import PREPARED

SUMMARY = ("loss", "accuracy", "map")
"""The metrics of each output before and after training."""


class ObjectiveTrainer(BaseTrainer):
    """A Trainer whose loss is the weighted sum of ``targets``, each masked by its labels, and of penalties.

    It logs the loss and number of labels of every objective and any learnt task weights, and evaluates to
    ``eval_OUTPUT_loss`` and ``eval_OUTPUT_accuracy``. A loss is the mean over the labelled elements of all accumulated
    batches of all processes in one optimizer step, the same as in one process with one large batch.
    """

    def __init__(
        self,
        *,
        settings: TrainSettings,
        targets: Sequence[Target],
        splits: Splits,
        factors: dict[str, float],
        waiting: Unfreezing | None = None,
        norms: SeparateNorms | None = None,
        cache: FeatureCache | None = None,
        averaging: Averaging | None = None,
        mixing: Mixing | None = None,
        views: TestViews | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            train_dataset=splits.train if cache is None else cache.dataset(),
            eval_dataset=splits.test if splits.validation is None else splits.validation,
            data_collator=splits.collate,
            compute_metrics=self._metrics,
            **kwargs,
        )
        self.settings = settings
        self.test = splits.test
        self.targets = list(targets)
        self.penalties: list[Term] = []
        self.learnt: dict[str, nn.Parameter] = {}
        self.factors = factors
        self.waiting = waiting
        self.norms = norms
        self.domains = DomainFeed(self.model, splits.domains)
        self.cache = cache
        self.averaging = averaging
        self.mixing = mixing
        self.views = views
        self.call = call_of(self.model, splits.inputs)
        learnt = settings.task_weights == "uncertainty"
        self.weighing = UncertaintyWeights(targets, self.args.device) if learnt else FixedWeights(targets)
        # The Trainer averages the losses of accumulated batches. transformers assumes that a model whose forward takes
        # **kwargs scales its loss itself; compute_loss does the scaling here.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.measured = torch.empty(0, 0)
        self.widths: list[int] = []
        self._seen: dict[str, list[Tensor]] = {}
        self._mass: Tensor | None = None
        self._last: Tensor | None = None
        self.guard = FiniteGuard(self.model, self.args)
        self.add_callback(self.guard)
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                # otherwise it sets its folder when training begins, and earlier evaluations would go to ./runs
                callback.logging_dir = str(Path(self.args.output_dir) / "runs")

    def measure(self) -> dict[str, float]:
        """Compute losses and accuracies on the test samples, by objective."""
        metrics = self.evaluate(self.test)
        names = (f"{target.objective.output}_{metric}" for target in self.targets for metric in SUMMARY)
        return {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, even if the model has been evaluated before.

        accelerate marks a model that it has prepared for evaluation, and would then not wrap it for several processes:
        each would train its own copy.
        """
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled) and self.args.world_size > 1:
            self.model.__dict__.pop(PREPARED, None)
            self.model_wrapped = self.model
        try:
            with ExitStack() as stack:
                for part in (self.norms, self.domains, self.cache):
                    if part is not None:
                        stack.enter_context(part.installed())
                return super().train(*args, **kwargs)
        finally:
            self.model.__dict__.pop(PREPARED, None)

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return learnt task weights, tensors of penalties, and averaged weights."""
        learnt: dict[str, Tensor] = {str(index): value for index, value in enumerate(self.weighing.parameters)}
        learnt |= {f"penalty.{name}": parameter for name, parameter in self.learnt.items()}
        return learnt | (self.averaging.tensors() if self.averaging is not None else {})

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.settings.sampling == "uniform":
            return super()._get_train_sampler(train_dataset)  # type: ignore[no-any-return]
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return make_sampler(self.settings.sampling, dataset, self.targets, self.args.seed)

    # ---- the loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Return the batches of one step, and count each objective's labels in all of them and in all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.mixing is not None:
            step, rank = self.state.global_step, self.args.process_index
            batches = [self.mixing(batch, f"{step} {number} {rank}") for number, batch in enumerate(batches)]
        counts = [target.mass(batch).sum() for batch in batches for target in self.targets]
        # stacked on the GPU: reading a number from a GPU waits for all its queued work
        stacked = torch.stack(counts) if counts else torch.zeros(0)
        mass = stacked.to(self.args.device).reshape(len(batches), len(self.targets)).sum(0)
        if _processes() > 1:
            dist.all_reduce(mass)
        self._mass = mass
        return batches, items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the weighted sum of the objectives' losses, with the model's outputs if ``return_outputs``."""
        if model.training and self.waiting is not None:
            self.waiting.hold()
        outputs = self.run_model(model, inputs)
        total = torch.zeros((), device=next(iter(outputs.values())).device)
        # the Trainer averages over these, but the losses must be summed
        parts = self.current_gradient_accumulation_steps * _processes() if model.training else 0
        for position, target in enumerate(self.targets):
            values, valid = target.losses(outputs, inputs)
            mass = target.mass(inputs)
            whole, share = (self._mass[position], parts) if parts and self._mass is not None else (mass.sum(), 1)
            # in a batch without labels all values are zeros that still have a gradient
            loss = (values * mass).sum() * share / whole.where(whole > 0, 1)
            total = total + self.weighing.weigh(position, loss, whole > 0)
            if model.training:
                self._note(target, loss, valid, outputs, inputs)
        for term in self.penalties if model.training else ():
            penalty = term(outputs, inputs)
            total = total + penalty
            self._seen.setdefault("penalty_loss", []).append(penalty.detach())
        if model.training:
            self._last = total.detach()
            losses = {
                name.removesuffix("_loss"): history[-1]
                for name, history in self._seen.items()
                if name.endswith("_loss")
            }
            if _processes() == 1:  # several processes stop at the same step, by the norm of the shared gradients
                self.guard.check_loss(self._last, losses, self.state)
        return (total, outputs) if return_outputs else total

    def run_model(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the outputs of ``model``, or of its wrapper, for a batch."""
        if self.norms is not None:
            self.norms.domain = batch["domain"] if model.training else None
        if self.domains.tables:
            self.domains.tell(batch["domain"] if model.training else None)
        if self.cache is not None:
            self.cache.serve(batch, training=model.training)
        if self.views is not None and not model.training:
            return self.views(lambda view: self.call(model, view), batch)
        return self.call(model, batch)

    def live(self) -> dict[str, float]:
        """Get the losses of the last batch, and the accuracy of the domain classifiers."""
        last = {name: values[-1].item() for name, values in self._seen.items() if not name.endswith("_labels")}
        return {"loss": self._last.item(), **last} if self._last is not None else last

    def history(self) -> list[dict[str, float]]:
        """Return the training log: losses and intermediate evaluations, one entry per step.

        Call it before the network is evaluated again.
        """
        entries: list[dict[str, float]] = []
        for entry in self.state.log_history:
            if "loss" in entry or any(name.startswith("eval_") for name in entry):
                if entries and entries[-1].get("step") == entry.get("step"):
                    entries[-1] = {**entries[-1], **entry}
                else:
                    entries.append(dict(entry))
        return entries

    def forget(self) -> None:
        """Discard the losses of batches that were not for training."""
        self._seen.clear()
        self._last = None

    def _note(self, target: Target, loss: Tensor, valid: Tensor, outputs: dict[str, Tensor], batch: Batch) -> None:
        output = target.objective.output
        if len(self.targets) > 1:
            self._seen.setdefault(f"{output}_loss", []).append(loss.detach())
        self._seen.setdefault(f"{output}_labels", []).append(valid.sum())
        scores = target.scores(outputs, batch) if target.objective.label == DOMAIN else None
        if scores is not None:
            with torch.no_grad():
                self._seen.setdefault(f"{output}_accuracy", []).append(masked_mean(scores, valid))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to the log since the last entry: losses (means), labels (their number), task weights."""
        if "loss" in logs:
            for name, values in self._seen.items():
                number = torch.stack(values).float()
                number = number.sum() if name.endswith("_labels") else number.mean()
                if _processes() > 1:  # every process logs the same names
                    dist.all_reduce(number, dist.ReduceOp.SUM)
                    number = number if name.endswith("_labels") else number / _processes()
                logs[name] = number.item()
            self._seen.clear()
            for position, weight in self.weighing.numbers().items():
                logs[f"{self.targets[position].objective.output}_weight"] = weight
        super().log(logs, start_time)

    # ---- the optimizer

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer that the arguments name, with groups by learning rate and weight decay."""
        if self.optimizer is not None:
            return self.optimizer  # type: ignore[no-any-return]
        wrapped = self.model if model is None else model
        prepared: Any = getattr(self, "optimizer_cls_and_kwargs", None)
        kind, options = prepared or self.get_optimizer_cls_and_kwargs(self.args, wrapped)
        makes_groups = is_optimizer_factory(kind) or {"params", "model", "optimizer_dict"} & options.keys()
        if makes_groups and (self.settings.optimizer != type(self.settings.optimizer)() or self._extra_parameters):
            raise TrainingError(
                f"the optimizer {self.args.optim!r} groups its parameters itself",
                where="train.optimizer",
                hint="use another optim, such as adamw_torch; or leave out optimizer, task_weights, distill.features",
            )
        if not makes_groups:
            args = self.args
            groups = parameter_groups(
                wrapped, self.settings.optimizer, self.factors, rate=args.learning_rate, decay=args.weight_decay
            )
            if self._extra_parameters:
                groups.append({"params": self._extra_parameters, "lr": args.learning_rate, "weight_decay": 0.0})
            self.optimizer_cls_and_kwargs = (kind, {**options, "params": groups})
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run one forward and backward; parameters outside the model are synchronised and reset here."""
        if self._first_of_step:
            for parameter in self._extra_parameters:
                parameter.grad = None
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._first_of_step = self.accelerator.sync_gradients
        if self._first_of_step and _processes() > 1:
            for parameter in self._extra_parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= _processes()
        return loss

    _first_of_step = True

    @property
    def _extra_parameters(self) -> list[nn.Parameter]:
        """Trained parameters outside the network: task weights, and parameters of penalties."""
        return [*self.weighing.parameters, *self.learnt.values()]

    # ---- measuring

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate on the test samples, with averaged weights if weights are averaged."""
        with ExitStack() as stack:
            if self.averaging is not None:
                stack.enter_context(self.averaging.installed())
            return super().evaluate(*args, **kwargs)  # type: ignore[no-any-return]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute the metrics of each sample; see :func:`surgeon.training.metrics.rows`.

        No loss is returned: the Trainer would average the means of batches, which differs from the mean over samples
        if batches or labels differ in size. :meth:`_metrics` computes it from the rows.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = self.run_model(model, inputs)
            table, widths = rows(self.targets, outputs, inputs)
        refuse_other_sizes(self.targets, self.widths, widths)
        self.widths = widths
        return None, table, table.new_zeros(len(table))

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        parts = prediction.predictions
        self.measured = torch.cat([torch.as_tensor(part) for part in parts]) if isinstance(parts, list) else parts
        self.measured = torch.as_tensor(self.measured)
        loss = total_loss(self.targets, self.measured, self.widths, self.weighing)
        return {"loss": loss, **means(self.targets, self.measured, self.widths)}


def _processes() -> int:
    """Count the processes of a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
