"""Describe a grafted network as JSON: a stock class, and how the network differs from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from surgeon.architectures.same_structure import settings_of
from surgeon.errors import ExportError
from surgeon.families.transformers.fields import MUTABLE
from surgeon.graph.skeleton import build_skeleton
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.record import ATTRIBUTE
from surgeon.nn.mixing import Mixin, base_of
from surgeon.pipeline.exports.grafts.builders import Builder, builders_of

HINT = "use --to torch-export, which needs torch alone, or --to onnx"
OURS = "surgeon.nn."
LIBRARIES = ("torch.nn.", "transformers.", "torchvision.")
"""Whose modules can be built again: torch's layers and the libraries' parts from their attributes."""
TENSORS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""What a module keeps of tensors and children; described apart from its other attributes."""
HOOKS = (("_forward_pre_hooks", "register_forward_pre_hook"), ("_forward_hooks", "register_forward_hook"))


class Description:
    """Describe one network; :attr:`data` is the result, :attr:`modules` the modules of ``surgeon.nn`` that it needs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: set[str] = {f"{OURS}grafts", f"{OURS}frozen"}
        self.paths: dict[int, str] = {}
        for path, module in model.named_modules():
            self.paths.setdefault(id(module), path)
        self.builders = builders_of(model)
        composite = type(model).__module__.startswith(OURS) and _stock_class(type(model)) is type(model)
        self.data: dict[str, Any] = {"module": self._module(model, "")} if composite else self._network(model, "")
        self.data["hooks"] = self._hooks()
        self.data["frozen"] = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]

    def _network(self, module: nn.Module, path: str) -> dict[str, Any]:
        """Describe a network by what builds it, a config or a builder, and what differs from that."""
        cls = _stock_class(type(module))
        if (builder := self._builder(module)) is not None:
            of_builder: dict[str, Any] = {"builder": builder.name, "arguments": builder.arguments}
            return self._changed(module, builder.built, path, of_builder)
        config: Any = getattr(module, "config", None)
        if not cls.__module__.startswith("transformers.") or config is None:
            raise ExportError(
                f"a {cls.__module__}.{cls.__name__}, and only classes of transformers and what torchvision's builders "
                "make can be built again",
                where=path or type(module).__name__,
                hint=HINT,
            )
        try:
            built: nn.Module = build_skeleton(lambda: cls._from_config(config.__class__.from_dict(config.to_dict())))  # type: ignore[attr-defined]
        except Exception as error:  # whatever a class raises on a config that surgery has changed
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ExportError(
                f"{cls.__name__} cannot be built from its config: {reason}", where=path, hint=HINT
            ) from error
        return self._changed(module, built, path, {"class": cls.__name__, "config": config.to_dict()})

    def _changed(self, module: nn.Module, built: nn.Module, path: str, described: dict[str, Any]) -> dict[str, Any]:
        described |= {"removed": [], "changes": []}
        self._compare(module, built, path, "", described)
        return described

    def _builder(self, module: nn.Module) -> Builder | None:
        """Return the builder of a network of torchvision; of several of one class, the one with most of its tensors."""
        cls, shapes = _stock_class(type(module)), _shapes(module)
        fitting = [builder for builder in self.builders if type(builder.built) is cls]
        return max(fitting, key=lambda builder: len(shapes & _shapes(builder.built)), default=None)

    def _compare(self, module: nn.Module, built: nn.Module, path: str, inside: str, into: dict[str, Any]) -> None:
        """Write down what differs at one site and below; ``path`` is that of the whole tree, ``inside`` of the part."""
        change: dict[str, Any] = {}
        if mixins := self._mixins(type(module), path):
            change["mixins"] = mixins
        tensors = self._tensors(module)
        if tensors != self._tensors(built):
            change["tensors"] = tensors
        settings, former = settings_of(module, MUTABLE), settings_of(built, MUTABLE)
        differing = {key: value for key, value in settings.items() if key not in former or former[key] != value}
        for key, value in vars(module).items():  # what a mixin keeps on the network
            if mixins and key not in vars(built) and not key.startswith("_"):
                differing[key] = value
        differing.pop(ATTRIBUTE, None)
        if differing:
            change["settings"] = {
                key: self._value(value, f"{path}.{key}".lstrip(".")) for key, value in differing.items()
            }
        children: dict[str, Any] = {}
        for name, child in module._modules.items():
            place = f"{path}.{name}".lstrip(".")
            former_child = built._modules.get(name)
            if child is None:
                if former_child is not None or name not in built._modules:
                    children[name] = None
            elif former_child is not None and _stock_class(type(child)) is type(former_child):
                self._compare(child, former_child, place, f"{inside}.{name}".lstrip("."), into)
            else:
                children[name] = self._module(child, place)
        if children:
            change["children"] = children
        removed = [name for name, child in built._modules.items() if child is not None and name not in module._modules]
        into["removed"] += [f"{inside}.{name}".lstrip(".") for name in removed]
        if change:
            into["changes"].append({"at": inside, **change})

    def _module(self, module: nn.Module, path: str) -> dict[str, Any]:
        """Describe a module that surgery put in: its class, attributes, tensors and children."""
        first = self.paths[id(module)]
        if first != path:
            return {"same": first}
        cls = _stock_class(type(module))
        name = f"{cls.__module__}.{cls.__qualname__}"
        of_transformers = cls.__module__.startswith("transformers.") and hasattr(cls, "config_class")
        if of_transformers or self._builder(module) is not None:
            return {"network": self._network(module, path)}
        if not cls.__module__.startswith((OURS, *LIBRARIES)):
            raise ExportError(f"a {name}, whose source the export does not have", where=path, hint=HINT)
        if cls.__module__.startswith(OURS):
            self.modules.add(cls.__module__)
        attributes = {
            key: self._value(value, f"{path}.{key}".lstrip("."))
            for key, value in vars(module).items()
            if key not in TENSORS and key != ATTRIBUTE and key not in _PLAIN and not key.endswith("_hooks")
            and not key.endswith(("_hooks_with_kwargs", "_hooks_always_called"))
        }  # fmt: skip
        described: dict[str, Any] = {"class": name, "attributes": attributes, "tensors": self._tensors(module)}
        if mixins := self._mixins(type(module), path):
            described["mixins"] = mixins
        described["children"] = {
            name: None if child is None else self._module(child, f"{path}.{name}".lstrip("."))
            for name, child in module._modules.items()
        }
        return described

    def _mixins(self, cls: type, path: str) -> list[str]:
        """Name what surgery mixed into a class, the innermost first."""
        names: list[str] = []
        while (base := base_of(cls)) is not cls:
            mixin: type[Mixin] = cls.mixed_from[0]  # type: ignore[attr-defined]
            if not mixin.__module__.startswith(OURS):
                raise ExportError(f"{mixin.__name__} is mixed in, of another package", where=path, hint=HINT)
            self.modules.add(mixin.__module__)
            names.insert(0, f"{mixin.__module__}.{mixin.__name__}")
            cls = base
        return names

    def _tensors(self, module: nn.Module) -> list[list[Any]]:
        """List name, kind, shape and dtype of a module's own tensors; of one that is shared, where it comes first."""
        listed: list[list[Any]] = []
        for kind, table in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, tensor in table.items():
                form = None if tensor is None else [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
                saved = name not in module._non_persistent_buffers_set
                listed.append([kind, name, form, saved])
        return listed

    def _hooks(self) -> list[list[str]]:
        """List the hooks of surgery: the site, how it is registered, the module that it is a method of, the method."""
        listed = []
        for path, module in self.model.named_modules():
            for table, _ in HOOKS:
                for method in getattr(module, table).values():
                    owner = getattr(method, "__self__", None)
                    if not isinstance(owner, nn.Module) or not type(owner).__module__.startswith(OURS):
                        continue
                    if id(owner) not in self.paths:
                        raise ExportError("a hook of a module that is not in the network", where=path, hint=HINT)
                    listed.append([path, table, self.paths[id(owner)], method.__name__])
        return listed

    def _value(self, value: Any, where: str) -> Any:
        """Describe an attribute.

        Raises:
            ExportError: It is of a kind that JSON cannot hold.
        """
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return {"list" if isinstance(value, list) else "tuple": [self._value(item, where) for item in value]}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"dict": {key: self._value(item, where) for key, item in value.items()}}
        if isinstance(value, Architecture):
            return None  # what builds a column, which only surgeon asks
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if dataclasses.is_dataclass(value) and type(value).__module__.startswith(OURS):
            self.modules.add(type(value).__module__)
            fields = {field.name: self._value(getattr(value, field.name), where) for field in dataclasses.fields(value)}
            return {"record": f"{type(value).__module__}.{type(value).__qualname__}", "fields": fields}
        if isinstance(value, nn.Module) and id(value) in self.paths:
            return {"module": self.paths[id(value)]}
        raise ExportError(
            f"an attribute of class {type(value).__name__}, which code cannot be written for", where=where, hint=HINT
        )


_PLAIN = frozenset(vars(nn.Module())) - {"training"}
"""What every module has; the rest is a class's own."""


def _shapes(module: nn.Module) -> set[tuple[str, torch.Size]]:
    return {(name, tensor.shape) for name, tensor in module.state_dict().items()}


def _stock_class(cls: type) -> type:
    """The class without what surgery has mixed into it."""
    while (base := base_of(cls)) is not cls:
        cls = base
    return cls
