"""Let peft put its layers into a network, with or without weights, and find them again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

from surgeon_peft.config import ADAPTER, kind_of

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

__all__ = ["AuxiliaryTrainingWrapper", "BaseTunerLayer", "ModulesToSaveWrapper", "inject", "layers_of", "state_of"]


class NotInjectedError(ValueError):
    """peft could not attach an adapter, or not so that all of it is in the network."""


def inject(model: nn.Module, config: PeftConfig, seed: int = 0) -> list[str]:
    """Attach an adapter by peft's own tuner; the root stays what it is.

    Args:
        model: The network; its parameters may be on the meta device, and then those of the adapter are too.
        config: The adapter's config.
        seed: The seed of all values that peft draws; the generator's state is restored afterwards.

    Returns:
        The sites that hold another module than before.

    Raises:
        NotInjectedError: peft refuses the network or config, or keeps tensors where they could not be saved.
    """
    before = dict(model.named_modules())
    base = {id(tensor) for tensor in model.parameters()}
    meta = any(tensor.is_meta for tensor in model.parameters())
    options: dict[str, Any] = {"low_cpu_mem_usage": True} if meta else {}
    name = kind_of(config)
    # the modes under which surgeon builds networks without weights would also take the values of peft's constants
    with torch._C.DisableTorchFunction(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            tuner = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(kind_of(config))](model, {ADAPTER: config}, ADAPTER, **options)
            tuner._cast_adapter_dtype(adapter_name=ADAPTER, autocast_adapter_dtype=True)
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
            if meta and "meta" in str(error).lower():
                raise NotInjectedError(f"{name} looks at the weights while it is attached") from error
            raise NotInjectedError(" ".join(str(error).split()) or type(error).__name__) from error
    if tuner.model is not model:
        raise NotInjectedError(f"{name} replaces the whole network")
    tensor_ids = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    outside = [n for n, t in [*tuner.named_parameters(), *tuner.named_buffers()] if id(t) not in tensor_ids]
    if outside:
        raise NotInjectedError(f"{name} keeps tensors beside the network ({outside[0]})")
    if not base <= tensor_ids:
        raise NotInjectedError(f"{name} replaces tensors of the base")
    if meta:
        _refuse_unsaved(model, name)
    after = dict(model.named_modules())
    changed: list[str] = []
    for site, module in after.items():
        parents = (site.startswith(f"{parent}.") for parent in changed)
        if before.get(site) is not module and not any(parents):
            changed.append(site)
    return changed


def _refuse_unsaved(model: nn.Module, name: str) -> None:
    """Refuse tensors without values that no state dict holds, so that nothing would ever give them values."""
    for site, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        for path, part in model.get_submodule(site).named_modules(prefix=site):
            tensors: dict[str, Any] = {n: part._buffers.get(n) for n in part._non_persistent_buffers_set}
            plain = {
                key: value for key, value in part.__dict__.items() if not key.startswith(("_parameters", "_buffers"))
            }
            for key, value in plain.items():
                values = value.items() if isinstance(value, dict) else [("", value)]
                tensors.update({f"{key}.{n}".rstrip("."): v for n, v in values})
            for key, value in tensors.items():
                if isinstance(value, torch.Tensor) and value.is_meta:
                    raise NotInjectedError(f"{name} computes {path}.{key} while it is attached, and saves it nowhere")


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the topmost modules that peft has put into a network, with their sites."""
    top: list[str] = []
    for site, module in model.named_modules():
        is_peft_layer = isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
        if is_peft_layer and not any(site.startswith(f"{parent}.") for parent in top):
            top.append(site)
            yield site, module


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a module's state dict by name: the objects themselves, each under every name."""
    tensors: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set:
                tensors[f"{prefix}.{name}".lstrip(".")] = buffer
    return tensors


def set_tensor(module: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor in the place of the parameter or buffer ``name``."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        old = owner._parameters[leaf]
        trains = old is not None and old.requires_grad
        owner._parameters[leaf] = torch.nn.Parameter(value, requires_grad=trains)
    else:
        owner._buffers[leaf] = value
