"""Build a network of transformers or torchvision that surgery has changed, from its description in ``config.json``.

Written by surgeon with the modules that it uses beside it. It needs torch and transformers alone, and torchvision for a
network of torchvision:

    AutoModel.from_pretrained(folder, trust_remote_code=True)
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class GraftedConfig(PretrainedConfig):  # type: ignore[misc]  # transformers has no types
    """Hold the description of a network."""

    model_type = "surgeon_grafted"

    def __init__(self, network: dict[str, Any] | None = None, **options: Any) -> None:
        self.network = network or {}
        super().__init__(**options)


class GraftedNetwork(PreTrainedModel):  # type: ignore[misc]
    """Run the network that its config describes, on the network's own arguments.

    The network is ``self.network``, of its own class of transformers or torchvision with what surgery put into it.
    """

    config_class = GraftedConfig
    base_model_prefix = "network"

    def __init__(self, config: GraftedConfig) -> None:
        super().__init__(config)
        described = config.network
        self.network = _module(described["module"]) if "module" in described else _network(described)
        parts = dict(self.network.named_modules(remove_duplicate=False))
        for module in list(parts.values()):
            _link(module, parts)
        for site, table, owner, method in described["hooks"]:
            _register(parts[site], table, getattr(parts[owner], method))
        self.freeze()
        self.main_input_name = getattr(self.network, "main_input_name", "input_ids")
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a network, what was frozen frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded

    def freeze(self) -> None:
        """Let those parameters train that trained when the network was written, and no others."""
        frozen = set(self.config.network["frozen"])
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in frozen)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave what surgery put in as the checkpoint says; every tensor of it is there."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network."""
        return self.network(*args, **kwargs)


class Later(nn.Module):
    """Stand for a module of the tree while the tree is built."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


def _network(described: dict[str, Any]) -> nn.Module:
    """Build the stock class from its config, or by its builder, and change what surgery changed."""
    model: nn.Module
    if "builder" in described:
        models = importlib.import_module("torchvision.models")
        with torch.device("cpu"):  # detectors compute their anchors, which are in no checkpoint
            model = models.get_model(described["builder"], **described["arguments"])
    else:
        cls = getattr(transformers, described["class"])
        model = cls(cls.config_class.from_dict(described["config"]))
    for path in described["removed"]:
        parent, _, name = path.rpartition(".")
        del model.get_submodule(parent)._modules[name]
    for change in described["changes"]:
        module = model.get_submodule(change["at"])
        for name, child in change.get("children", {}).items():
            module._modules[name] = None if child is None else _module(child)
        if "tensors" in change:
            _set_tensors(module, change["tensors"])
        for mixin in change.get("mixins", ()):
            _mix(module, mixin)
        for name, value in change.get("settings", {}).items():
            module.__dict__[name] = _value(value)
    return model


def _module(described: dict[str, Any]) -> Any:
    """Make a module from its attributes, without its constructor."""
    if "same" in described:
        return Later(described["same"])
    if "network" in described:
        return _network(described["network"])
    cls = _class(described["class"])
    module: nn.Module = cls.__new__(cls)
    nn.Module.__init__(module)
    for name, value in described["attributes"].items():
        module.__dict__[name] = _value(value)
    _set_tensors(module, described["tensors"])
    for name, child in described["children"].items():
        module._modules[name] = None if child is None else _module(child)
    for mixin in described.get("mixins", ()):
        _mix(module, mixin)
    return module


def _set_tensors(module: nn.Module, listed: list[Any]) -> None:
    """Give a module tensors of the shapes that it has; the checkpoint holds their values."""
    for kind, name, form, saved in listed:
        table: Any = module._parameters if kind == "parameter" else module._buffers
        if form is None:
            table[name] = None
            continue
        shape, dtype = form
        former = table.get(name)
        if former is not None and list(former.shape) == shape:
            continue
        tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
        table[name] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point()) if kind == "parameter" else tensor
        if kind == "buffer" and not saved:
            module._non_persistent_buffers_set.add(name)
    names = {name for _, name, _, _ in listed}
    for table in (module._parameters, module._buffers):
        for name in [name for name in table if name not in names]:
            del table[name]


def _link(module: nn.Module, parts: dict[str, nn.Module]) -> None:
    """Put modules in the places that stand for them."""
    for name, child in list(module._modules.items()):
        if isinstance(child, Later):
            module._modules[name] = parts[child.path]
    for name, value in list(module.__dict__.items()):
        if isinstance(value, Later):
            module.__dict__[name] = parts[value.path]


def _mix(module: nn.Module, name: str) -> None:
    module.__class__ = _class("surgeon.nn.mixing.mixed")(_class(name), type(module))


def _register(site: nn.Module, table: str, method: Any) -> None:
    if table == "_forward_hooks":
        _class("surgeon.nn.grafts.hook")(site, method)
    else:
        site.register_forward_pre_hook(method)


def _class(name: str) -> Any:
    """Find a class by its full name; those of surgeon lie beside this file."""
    module, _, attribute = name.rpartition(".")
    if module.startswith("surgeon."):
        file = f"surgeons_{module.removeprefix('surgeon.').replace('.', '_')}"
        return getattr(importlib.import_module(f".{file}", __package__), attribute)
    return getattr(importlib.import_module(module), attribute)


def _value(described: Any) -> Any:
    """Make an attribute's value."""
    if isinstance(described, dict):
        if "list" in described:
            return [_value(item) for item in described["list"]]
        if "tuple" in described:
            return tuple(_value(item) for item in described["tuple"])
        if "dict" in described:
            return {key: _value(item) for key, item in described["dict"].items()}
        if "dtype" in described:
            return getattr(torch, described["dtype"])
        if "module" in described:
            return Later(described["module"])
        return _class(described["record"])(**{key: _value(item) for key, item in described["fields"].items()})
    return described
