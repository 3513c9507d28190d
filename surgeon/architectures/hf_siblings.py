"""Build another transformers class for a config, and initialise its new parts as transformers does.

``from_pretrained`` initialises tensors that a checkpoint lacks with the class's ``_init_weights``. This module does the
same for new parts only. The other parameters stay on the meta device, so a new head on a network of 70 billion
parameters costs no more than the head.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from surgeon.errors import ArchitectureError
from surgeon.graph.skeleton import META, build_skeleton, building

FLAG = "_is_hf_initialized"
"""The attribute by which transformers' initialisation skips modules and tensors."""


def stock_class(name: str) -> Any:
    """Return the transformers class ``name``.

    Raises:
        ArchitectureError: The installed release does not export it.
    """
    import transformers

    cls = getattr(transformers, name, None)
    if cls is None or not hasattr(cls, "_from_config"):
        raise ArchitectureError(f"transformers {transformers.__version__} does not export {name}")
    return cls


def build_stock(cls: Any, config: Any) -> nn.Module:
    """Build the skeleton of ``cls`` with ``config`` itself, not a copy, as its config.

    Raises:
        ArchitectureError: The class cannot be built from this config.
    """
    part = (getattr(config, "sub_configs", None) or {}).get("text_config")
    if part is not None and cls.config_class is part and not isinstance(config, part):
        raise ArchitectureError(
            f"{cls.__name__} is a class for the text part alone ({part.__name__}), and this network has other parts too"
        )
    try:
        return build_skeleton(lambda: cls._from_config(config))
    except Exception as error:  # a class may raise anything on another class's config
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArchitectureError(f"{cls.__name__} cannot be built from this config: {reason}") from error


class NewParts:
    """Initialise the new parts of a stock network.

    Args:
        cls: The class of the network.
        config: Its config; copied, because later operations may edit it.
    """

    def __init__(self, cls: Any, config: Any) -> None:
        self._cls = cls
        self._config = copy.deepcopy(config)

    def draw(self, site: str, names: Collection[str]) -> nn.Module:
        """Return the module at ``site`` with values for its tensors ``names``; other tensors are on the meta device.

        Seed torch first.
        """
        model = self._build()
        module: nn.Module = model.get_submodule(site)
        new = _allocate(module, names)
        part: Any
        for part in module.modules():
            if hasattr(part, "reset_parameters") and any(id(p) in new for p in part.parameters(recurse=False)):
                with _only(part, new):
                    part.reset_parameters()
        _mark(model, site, new)
        model.initialize_weights()
        values = module.state_dict()
        if any(_is_unset(values[name]) for name in names):  # a parameter that only the constructor sets
            module = self._cls._from_config(copy.deepcopy(self._config)).get_submodule(site)
        return module

    def _build(self) -> Any:
        """Build the network with parameters on the meta device and buffers as the constructor makes them."""
        for allocate in (False, True):
            try:
                with building(allocate=allocate):
                    return self._cls._from_config(copy.deepcopy(self._config))
            except Exception as error:
                if not META.search(str(error)):
                    raise
        return self._cls._from_config(copy.deepcopy(self._config))


def _allocate(module: nn.Module, names: Collection[str]) -> dict[int, torch.Tensor]:
    """Replace parameters on the meta device by NaN in memory, keeping ties."""
    allocated: dict[int, torch.Tensor] = {}
    replaced: dict[int, torch.Tensor] = {}
    for name in names:
        path, _, key = name.rpartition(".")
        owner = module.get_submodule(path)
        table: Any = owner._parameters if key in owner._parameters else owner._buffers
        old: Any = table[key]
        if old.is_meta:
            if id(old) not in replaced:
                value = torch.full(old.shape, float("nan") if old.is_floating_point() else 0, dtype=old.dtype)
                replaced[id(old)] = nn.Parameter(value) if isinstance(old, nn.Parameter) else value
            table[key] = replaced[id(old)]
        new: Any = table[key]
        allocated[id(new)] = new
    return allocated


@contextmanager
def _only(part: nn.Module, new: dict[int, torch.Tensor]) -> Iterator[None]:
    """Restore all parameters but ``new`` after the context."""
    saved = {name: p.detach().clone() for name, p in part.named_parameters(recurse=False) if id(p) not in new}
    yield
    with torch.no_grad():
        for name, parameter in part.named_parameters(recurse=False):
            if name in saved and not parameter.is_meta:
                parameter.copy_(saved[name])


def _mark(model: nn.Module, site: str, new: dict[int, torch.Tensor]) -> None:
    """Mark everything as initialised except ``new`` and the modules around them."""
    for name, module in model.named_modules(remove_duplicate=False):
        near = name == site or name.startswith(f"{site}.") or site.startswith(f"{name}.") or not name or not site
        setattr(module, FLAG, not near)
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                setattr(tensor, FLAG, id(tensor) not in new)


def _is_unset(value: torch.Tensor) -> bool:
    return value.is_meta or (value.is_floating_point() and bool(torch.isnan(value).any()))
