"""Make parameter groups: set the learning rate and weight decay of parameters."""

from __future__ import annotations

from typing import Any

from torch import nn

from surgeon.errors import SiteError, TrainingError
from surgeon.recipe.train_settings import OptimizerSettings
from surgeon.training.anatomy import Anatomy

WRAPPERS = ("module", "_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")
"""The name parts that engines add to parameters when they wrap a network."""


def own_name(name: str) -> str:
    """Get the name of a parameter in the network itself, without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def rate_factors(model: nn.Module, settings: OptimizerSettings, anatomy: Anatomy) -> dict[str, float]:
    """Compute the factor of each parameter's learning rate, by its name.

    Raises:
        TrainingError: A selector names nothing, or the network has no blocks, which ``layer_decay`` needs.
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
    """Make the groups for an optimizer: one for each learning rate and weight decay, the highest rate first.

    Biases and norms (parameters with one dimension) do not decay unless ``decay_norms`` is set. Frozen parameters are
    in no group.

    Args:
        model: The network, or an engine's wrapper of it.
        settings: Whether norms decay.
        factors: The factor of each learning rate, by the parameter's name in the network itself.
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
