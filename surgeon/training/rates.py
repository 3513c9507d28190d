"""Choose learning rates for a recipe: defaults that keep what a network has learnt, and a range test."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from surgeon.errors import TrainingError
from surgeon.recipe.train_settings import BaselineSettings, OptimizerSettings, TrainSettings
from surgeon.training.anatomy import Anatomy

if TYPE_CHECKING:
    from surgeon.training.trainer import ObjectiveTrainer

USUAL = 1e-3
"""AdamW's rate for new parameters, and for convolutional networks."""
GENTLE = 5e-5
"""The rate for trained attention layers, transformers' own default."""
WARMUP = 0.1
ATTENTION = re.compile("Attention")

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
"""The range test: the lowest and highest rate, and the number of steps."""
SMOOTH = 0.9
"""The share of the smoothed loss that stays in each step of the range test."""
DIVERGED = 4.0
"""The range test ends when the loss is this many times the best."""


def numeric_rate(settings: TrainSettings) -> float:
    """Return the learning rate as a number; ``auto`` and ``find``, before a network is loaded, count as the default."""
    return settings.learning_rate if not isinstance(settings.learning_rate, str) else USUAL


def resolved(settings: TrainSettings, model: nn.Module, anatomy: Anatomy, *, fresh: bool = False) -> TrainSettings:
    """Return settings with numbers for ``learning_rate: auto`` and for a warm-up that is left out.

    Args:
        settings: The recipe's ``train:`` section.
        model: The network.
        anatomy: Which parameters came from the source.
        fresh: Whether the network starts from initial weights, so that nothing learnt can be lost.
    """
    layers = [name for name, module in model.named_modules() if ATTENTION.search(type(module).__name__)]
    inside = tuple(f"{name}." for name in layers)
    training = {name for name, p in model.named_parameters() if p.requires_grad and name.startswith(inside)}
    changes: dict[str, Any] = {}
    if settings.learning_rate == "auto":
        gentle = bool(training & anatomy.kept) and not fresh
        changes["learning_rate"] = GENTLE if gentle else USUAL
    if settings.warmup is None and "warmup_steps" not in settings.arguments:
        constant = str(settings.arguments.get("lr_scheduler_type", "")) == "constant"  # a schedule without a warm-up
        changes["warmup"] = WARMUP if training and not constant else 0.0
    return settings.model_copy(update=changes)


def for_baseline(settings: TrainSettings, baseline: BaselineSettings) -> TrainSettings:
    """Return the settings of a baseline from initial weights; see :class:`BaselineSettings`."""
    plain = OptimizerSettings(decay_norms=settings.optimizer.decay_norms)
    changes: dict[str, Any] = {"features": "none", "optimizer": baseline.optimizer or plain, "baseline": "none"}
    changes["distill"] = None
    for name in ("epochs", "batch_size", "learning_rate", "warmup"):
        if (value := getattr(baseline, name)) is not None:
            changes[name] = value
    arguments = {**settings.arguments, **baseline.arguments}
    if baseline.epochs is not None:
        arguments.pop("max_steps", None)
    return settings.model_copy(update={**changes, "arguments": arguments})


def find_rate(trainer: ObjectiveTrainer) -> float:
    """Find a learning rate by a range test (Smith 2017): a tenth of the rate at which the loss is lowest.

    The rate rises exponentially with every step on training samples. The network, the random state and the optimizer
    are restored afterwards. The rates of different parameters keep their ratios.

    Raises:
        TrainingError: The loss does not fall at any rate.
    """
    with _restored(trainer):
        highest = trainer.args.learning_rate
        trainer.args.learning_rate = LOWEST
        optimizer = trainer.create_optimizer()
        schedule = ExponentialLR(optimizer, (HIGHEST / LOWEST) ** (1 / (STEPS - 1)))
        trainer.model.to(trainer.args.device)
        smoothed = 0.0
        rates: list[float] = []
        losses: list[float] = []
        batches = chain.from_iterable(trainer.get_train_dataloader() for _ in repeat(None))
        for step in range(STEPS):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
            batch = trainer._prepare_inputs(next(batches))
            trainer.model.train()
            optimizer.zero_grad()
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, batch)
            if not math.isfinite(loss.item()):
                break
            loss.backward()
            if trainer.args.max_grad_norm:
                nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
            optimizer.step()
            schedule.step()
            smoothed = SMOOTH * smoothed + (1 - SMOOTH) * loss.item()
            losses.append(smoothed / (1 - SMOOTH ** (step + 1)))
            rates.append(rate)
            if losses[-1] > DIVERGED * min(losses):
                break
        trainer.args.learning_rate = highest
    best = min(range(len(losses)), key=losses.__getitem__, default=0)
    if not losses or losses[best] >= losses[0]:
        raise TrainingError(
            "no learning rate lowers the loss in a range test", where="train.learning_rate", hint="give a number: 0.001"
        )
    return rates[best] / 10


@contextmanager
def _restored(trainer: ObjectiveTrainer) -> Iterator[None]:
    model = trainer.model
    tensors = {name: t.detach().clone() for name, t in chain(model.named_parameters(), model.named_buffers())}
    modes = {module: module.training for module in model.modules()}
    learnt = [parameter.detach().clone() for parameter in trainer.weighing.parameters]
    batches, trainer._mass = trainer._mass, None
    trainer.current_gradient_accumulation_steps = 1
    trainer.guard.watching = False
    try:
        with torch.random.fork_rng():
            yield
    finally:
        with torch.no_grad():
            for name, tensor in chain(model.named_parameters(), model.named_buffers()):
                tensor.copy_(tensors[name])
            for parameter, value in zip(trainer.weighing.parameters, learnt, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        model.zero_grad()
        for module, mode in modes.items():
            module.training = mode
        trainer._mass = batches
        trainer.optimizer = trainer.lr_scheduler = None
        del trainer.optimizer_cls_and_kwargs
        trainer.guard.watching = True
        trainer.forget()
