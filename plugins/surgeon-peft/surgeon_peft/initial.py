"""Compute the first values of adapters one layer at a time, by peft itself, from the values of the layer they adapt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from surgeon.errors import OperationError
from surgeon_peft.config import kind_of
from surgeon_peft.injection import NotInjectedError, inject, set_tensor, state_of

if TYPE_CHECKING:
    from peft import PeftConfig


class Seed(nn.Module):
    """Hold a random number. As a new module it depends on the recipe's seed and on what is computed from it."""

    number: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("number", torch.randint(2**31, (1,)))


class LayerValues:
    """Compute the tensors that an adapter adds to one layer: attach the same adapter to that layer alone.

    They are computed together and handed out one by one, each freed when it was.

    Args:
        config: The adapter's config, with the names of all its targets.
        site: The layer.
        layer: The layer before, without its weights.
        reads: Whether the first values depend on the layer's. If not, its weights take no memory.
    """

    def __init__(self, config: PeftConfig, site: str, layer: nn.Module, *, reads: bool) -> None:
        self._config = config
        self._site = site
        self._layer = copy.deepcopy(layer)
        self._reads = reads
        self._names = tuple(state_of(layer))
        self._left: dict[str, torch.Tensor] = {}

    def sources(self, layer: nn.Module) -> list[torch.Tensor]:
        """List the tensors of the layer that the values are computed from."""
        return list(state_of(layer).values()) if self._reads else []

    def of(self, name: str) -> Callable[..., torch.Tensor]:
        """Return the function that computes the tensor ``name`` of the adapted layer from a seed and the sources."""
        return partial(self._value, name)

    def _value(self, name: str, seed: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        if name not in self._left:
            self._left = self._computed(int(seed.item()), values)
        value = self._left.pop(name)
        if set(self._left) <= set(self._names) | {f"base_layer.{n}" for n in self._names}:
            self._left = {}
        return value

    def _computed(self, seed: int, values: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        layer = copy.deepcopy(self._layer)
        for name, tensor in state_of(layer).items():
            value = values[self._names.index(name)] if self._reads else unallocated(tensor)
            set_tensor(layer, name, value)
        before = {name: tensor.clone() for name, tensor in state_of(layer).items()} if self._reads else {}
        shell = shell_of({self._site: layer})
        config = only(self._config, [self._site])
        try:
            inject(shell, config, seed)
        except NotInjectedError as error:
            raise OperationError(f"{self._site}: {error}") from error
        for name, tensor in state_of(layer).items():
            if self._reads and not torch.equal(tensor, before[name]):
                raise OperationError(
                    f"{kind_of(self._config)} changes {self._site}.{name} of the base, which stays as it is",
                    hint="choose another way to initialise it",
                )
        state = state_of(shell.get_submodule(self._site))
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def shell_of(layers: Mapping[str, nn.Module]) -> nn.Module:
    """Make a tree that holds layers at their sites, and nothing else."""
    root = nn.Module()
    for site, layer in layers.items():
        owner = root
        *path, leaf = site.split(".")
        for name in path:
            if name not in owner._modules:
                owner.add_module(name, nn.Module())
            owner = owner.get_submodule(name)
        owner.add_module(leaf, layer)
    return root


def shared_values(config: PeftConfig, layers: Mapping[str, nn.Module]) -> nn.Module:
    """Attach an adapter to all of its layers, whose weights take no memory: for tensors that layers share."""
    real = {}
    for site, layer in layers.items():
        real[site] = copy.deepcopy(layer)
        for name, tensor in state_of(layer).items():
            set_tensor(real[site], name, unallocated(tensor))
    shell = shell_of(real)
    inject(shell, only(config, list(layers)), int(torch.randint(2**31, (1,)).item()))
    return shell


def only(config: PeftConfig, sites: list[str]) -> PeftConfig:
    """Copy a config for a tree that holds only ``sites``."""
    config = copy.deepcopy(config)
    config.target_modules = sites
    if getattr(config, "feedforward_modules", None) is not None:
        config.feedforward_modules = [site for site in sites if ends_with_one(site, config.feedforward_modules)]
    if hasattr(config, "modules_to_save"):
        config.modules_to_save = None
    return config


def ends_with_one(site: str, names: Iterable[str]) -> bool:
    """Whether a site is one of ``names``, or ends with one, as peft compares them."""
    return any(site == name or site.endswith(f".{name}") for name in names)


def reads_weights(config: PeftConfig) -> bool:
    """Whether an adapter's first values depend on the weights that it adapts."""
    name = kind_of(config)
    if name == "LORA":
        variants = [key for key, value in vars(config).items() if key.startswith("use_") and value]
        plain = config.init_lora_weights in (True, False, "gaussian") and set(variants) <= {"use_rslora"}
        return not plain
    return name not in {"IA3", "LOHA", "LOKR", "VERA"}


def unallocated(tensor: torch.Tensor) -> torch.Tensor:
    """Make zeros of a tensor's shape and dtype that take no memory."""
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
