"""Parameter groups: which parameters learn at what rate, and which decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from surgeon.errors import SiteError, TrainingError
from surgeon.recipe.train_settings import OptimizerSettings
from surgeon.training.anatomy import Anatomy

WRAPPERS = ("module", "_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
"""What engines put into the names of parameters when they wrap a network."""


def own_name(name: str) -> str:
    """The name that a parameter has in the network itself, whatever wraps that."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def rate_factors(model: nn.Module, settings: OptimizerSettings, anatomy: Anatomy) -> dict[str, float]:
    """The factor of each parameter's learning rate, by its name.

    Raises:
        TrainingError: A selector names nothing, or there are no blocks for ``layer_decay`` to go by.
    """
    factors = {name: 1.0 for name, _ in model.named_parameters()}
    if settings.layer_decay != 1:
        depths, last = anatomy.depths()
        factors = {name: settings.layer_decay ** (last - depth) for name, depth in depths.items()}
    chosen: list[tuple[str, str, float]] = [("rates", selector, rate) for selector, rate in settings.rates.items()]
    if settings.head_rate != 1:
        chosen.insert(0, ("head_rate", "head", settings.head_rate))
    for key, selector, rate in chosen:
        try:
            names = anatomy.parameters([selector])
        except SiteError as error:
            raise TrainingError(error.message, where=f"train.optimizer.{key}", hint=error.hint) from error
        if not names:
            raise TrainingError(f"{selector!r} holds no parameters", where=f"train.optimizer.{key}")
        for name in names:
            factors[name] *= rate
    return factors


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, factors: dict[str, float], *, rate: float, decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimizer: one for each learning rate and weight decay, the fastest first.

    Biases and norms (all that has one dimension) do not decay unless ``decay_norms`` says so. Frozen parameters
    are in no group.

    Args:
        model: The network, or what an engine made of it.
        settings: What of it decays.
        factors: The factor of each learning rate, by the parameter's own name.
        rate: The learning rate.
        decay: The weight decay.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = settings.decay_norms or (parameter.ndim > 1 and not name.endswith(".bias"))
            groups.setdefault((factors.get(own_name(name), 1.0), decays), []).append(parameter)
    return [
        {"params": parameters, "lr": rate * factor, "weight_decay": decay if decays else 0.0}
        for (factor, decays), parameters in sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    ]
