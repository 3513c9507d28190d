"""Change what a module is besides its tensors and children: its settings, its class, the hooks on its forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Literal

from torch import nn

from surgeon.errors import OperationError, suggest
from surgeon.graph.edit import drop_tap
from surgeon.graph.sites import Site
from surgeon.nn.grafts import Tap, hook, unhook
from surgeon.surgery.inspection import name_of
from surgeon.surgery.module_edits import ModuleEdits
from surgeon.surgery.module_state import CLASS, HOOKS, TRAINING, Change, ModuleStates
from surgeon.surgery.plan import Edit


class SettingEdits(ModuleEdits):
    """Set attributes and hooks. Each is in the plan; what only follows from another edit is recorded without that."""

    def set(self, site: Site | str, attribute: str, value: Any) -> None:
        """Give a module another setting, and show it in the plan: ``surgery.set("conv1", "stride", (2, 2))``.

        Args:
            site: The module.
            attribute: The name of the setting; ``config.hidden_act`` for a field of a config that the module has, and
                ``__class__`` for the class of the module.
            value: What it is from now on. The network is copied and saved, so a function has to be one of a module.

        Raises:
            OperationError: There is no such setting, or it is a tensor or a module, or does not last.
        """
        name = name_of(site)
        module = self.model.get_submodule(name)
        holder, field = _resolved(module, name, attribute, value)
        before = ModuleStates([(name, module)])
        try:
            if isinstance(holder, Mapping):
                holder[field] = value  # type: ignore[index]
            else:
                setattr(holder, field, value)
        except Exception as error:  # a config may check its fields in any way
            place = f"{name}.{attribute}".lstrip(".")
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OperationError(f"{place} cannot be set to {value!r}: {reason}") from error
        changes = list(before.changes(ModuleStates([(name, module)])))
        self._claim(changes)
        for change in changes:
            self._journal.settings.append(Edit("~", name, _difference(change)))
        self._retrace()

    def hook(
        self,
        site: Site | str,
        method: Callable[..., Any],
        *,
        where: Literal["after", "before"] = "after",
        kwargs: bool = False,
    ) -> None:
        """Call a method of a module whenever ``site`` runs, and show it in the plan.

        A method survives ``deepcopy``, pickling and ``torch.compile``; a function or a closure does not.

        Args:
            site: The module whose forward is followed.
            method: A method of a module that is in the network when the operation ends. It takes what PyTorch gives to
                a forward hook, ``(module, args, output)``, or with ``before`` to a pre-hook, ``(module, args)``.
            where: Call it after the site's forward, or before.
            kwargs: Whether it also takes the keyword arguments, after ``args``.

        Raises:
            OperationError: ``method`` is not a method of a module.
        """
        owner = getattr(method, "__self__", None)
        name = name_of(site)
        if not isinstance(owner, nn.Module):
            raise OperationError(
                f"the hook on {name or 'the network'} is {_callable(method)}, not a method of a module: it would be "
                "lost or shared where the network is copied or saved",
                hint="make it a method of a module in the network: surgery.hook(site, module.method)",
            )
        target = self.model.get_submodule(name)
        if where == "before":
            target.register_forward_pre_hook(method, with_kwargs=kwargs)
        elif kwargs:
            target.register_forward_hook(method, with_kwargs=True)
        else:
            hook(target, method)
        self._journal.claim(target, HOOKS)
        self._journal.hooked.append((owner, name))
        edit = Edit("~", name, f"calls {type(owner).__name__}.{_name(method)} {where} its forward")
        self._journal.settings.append(edit)
        self._retrace()

    def unhook(self, site: Site | str, method: Callable[..., Any]) -> None:
        """Remove a hook that follows the forward of ``site``."""
        target = self.model.get_submodule(name_of(site))
        unhook(target, method)
        for key in [key for key, registered in target._forward_pre_hooks.items() if registered == method]:
            del target._forward_pre_hooks[key]
        self._journal.claim(target, HOOKS)
        change = f"no longer calls {_callable(method)}"
        self._journal.settings.append(Edit("~", name_of(site), change))
        self._retrace()

    @contextmanager
    def bookkeeping(self) -> Iterator[None]:
        """Record within the block every setting that changes, without a line in the plan.

        For what only follows from an edit that the plan shows: a module's count of channels, the index of a block, the
        number of classes in a config. Settings, config fields and train modes are recorded; classes and hooks are not.
        """
        if self._journal.replays:
            yield
            return
        before = ModuleStates(self.model.named_modules())
        yield
        after = ModuleStates(self.model.named_modules())
        self._claim([change for change in before.changes(after) if change.name not in (CLASS, HOOKS)])

    def untap(self, tap: Tap) -> None:
        """Let a tap that :meth:`tap` made read nothing any more."""
        for module in self.model.modules():
            if any(getattr(method, "__self__", None) is tap for method in module._forward_hooks.values()):
                self._journal.claim(module, HOOKS)
        drop_tap(self.model, tap)
        self._retrace()

    def _claim(self, changes: list[Change]) -> None:
        for change in changes:
            self._journal.claim(change.holder, change.name)


def _resolved(module: nn.Module, site: str, attribute: str, value: Any) -> tuple[Any, str]:
    """Find the object that has the attribute, and the attribute's name there.

    Raises:
        OperationError: It is none that can be set.
    """
    *path, field = attribute.split(".")
    place = site or "the network"
    holder: Any = module
    for name in path:
        holder = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
        if holder is None or isinstance(holder, nn.Module):
            problem = "is a module: name it as the site" if holder is not None else "does not exist"
            raise OperationError(f"{place}.{name} {problem}, so {attribute!r} cannot be set")
    if isinstance(holder, nn.Module):
        _refuse_what_is_no_setting(holder, place, field, value)
    present = field in holder if isinstance(holder, Mapping) else field == CLASS or hasattr(holder, field)
    if not present:
        names = [*holder] if isinstance(holder, Mapping) else [n for n in vars(holder) if not n.startswith("_")]
        raise OperationError(
            f"{place} ({type(holder).__name__}) has no {field!r}",
            hint=suggest(field, names) or "put a module of your own class there: surgery.replace(site, module)",
        )
    return holder, field


def _refuse_what_is_no_setting(module: nn.Module, place: str, field: str, value: Any) -> None:
    state = module._buffers.keys() - module._non_persistent_buffers_set
    if field in module._modules or isinstance(value, nn.Module):
        kind, remedy = "a module", "surgery.replace(site, module), attach or remove"
    elif field in module._parameters or field in state or isinstance(value, nn.Parameter):
        kind, remedy = "a tensor of the state dict", "surgery.derive, fill or reshape; surgery.freeze for requires_grad"
    elif field == TRAINING:
        kind, remedy = (
            "a mode, which train() and eval() change back",
            "surgery.freeze makes norms stay in eval mode",
        )
    elif field == "forward" or isinstance(value, FunctionType):
        kind, remedy = PATCHED, "surgery.replace(site, module of your own class), insert, or hook"
    elif field == CLASS and not (isinstance(value, type) and issubclass(value, nn.Module)):
        raise OperationError(f"the class of {place} would be {value!r}, which is not a class of modules")
    else:
        return
    raise OperationError(f"{place}.{field} is {kind}, not a setting", hint=remedy)


PATCHED = "a function in the place of a method, which is lost or shared where the network is copied or saved"


def _difference(change: Change) -> str:
    if change.name == CLASS:
        return f"{change.old} → {change.new}"
    return f"{change.attribute} {change.old or 'none'} → {change.new or 'none'}"


def _callable(method: Any) -> str:
    return f"{getattr(method, '__qualname__', None) or repr(method)}"


def _name(method: Any) -> str:
    return str(getattr(method, "__name__", type(method).__name__))
