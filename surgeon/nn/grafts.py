"""Add to a network's forward: taps that read outputs of sites, branches that use them, an exit that ends it.

:class:`Grafted` is mixed into the network's class, so that no module name and no key in its state dict changes. Hooks
are bound methods of modules in the same network: they survive ``deepcopy``, pickling,
``torch.compile(fullgraph=True)`` and ``torch.export``.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar, cast

import torch
from torch import nn

from surgeon.interfaces.composite import METHOD, ORDINARY, Composite
from surgeon.nn.features import PRINCIPAL, main_tensor, with_main_tensor
from surgeon.nn.mixing import Mixin, base_of, mixed
from surgeon.nn.outputs import Outputs

TRUNK_OUTPUT = "logits"
ATTRIBUTES = ("grafts", "exit", "network_output", "mask_position")
"""What :func:`graft` adds to a network."""


class Exit(BaseException):
    """End a forward. It is a BaseException, so that ``except Exception`` in a network does not catch it."""


class Tap(nn.Module):
    """Read the output of a site during the forward.

    Args:
        copies: Keep a copy, because a later in-place operation overwrites the output.
        exits: End the forward here.
    """

    def __init__(self, *, copies: bool = False, exits: bool = False) -> None:
        super().__init__()
        self.copies = copies
        self.exits = exits
        self.value: Any = None

    def read(self, module: nn.Module, args: Any, output: Any) -> None:
        """Store the output; a forward hook."""
        tensor = main_tensor(output)
        # a network that ends in a dictionary of feature maps returns all of them
        several = self.exits and isinstance(output, Mapping) and not any(name in output for name in PRINCIPAL)
        value = output if tensor is None or several else tensor
        self.value = value.clone() if self.copies and isinstance(value, torch.Tensor) else value
        if self.exits:
            raise Exit

    def extra_repr(self) -> str:
        """Show the options that are set."""
        return ", ".join(name for name in ("copies", "exits") if getattr(self, name))


class Branch(nn.Module):
    """Compute one more named output from the features of a tap.

    Args:
        tap: Reads the features.
        head: Takes the features ``(batch, …)``. If it declares ``takes_mask = True``, it also gets the
            ``attention_mask`` of the network's forward, or None.
    """

    def __init__(self, tap: Tap, head: nn.Module) -> None:
        super().__init__()
        self.tap = tap
        self.head = head

    def forward(self, mask: torch.Tensor | None = None) -> Any:
        """Compute the branch's output from what its tap has read."""
        if getattr(self.head, "takes_mask", False):
            return self.head(self.tap.value, mask)
        return self.head(self.tap.value)


class Grafted(Mixin):
    """Extend the class of a network that ends early or has branches; a mixin.

    Attributes:
        grafts: The branches by the name of their output.
        exit: The tap that ends the forward, or None.
        network_output: The name of the network's own output if there are several, or None if it is dropped.
        mask_position: The position of ``attention_mask`` among the forward's arguments, or None.
    """

    grafts: nn.ModuleDict
    exit: Tap | None
    network_output: str | None
    mask_position: int | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if len(cls.__bases__) == 2:  # mixed with a network, whose forward's signature others look up
            cls.forward = _with_signature_of(cls.__bases__[1].forward)  # type: ignore[method-assign, attr-defined]

    def surgeon_composite(self) -> Composite:
        """Add the heads of the branches, and the name of a single output, to the facts of the network's own class."""
        inherited = getattr(super(), METHOD, None)
        facts: Composite = ORDINARY if inherited is None else inherited()
        if not self.grafts:
            return facts
        alone = self.network_output is None and len(self.grafts) == 1
        lone = next(iter(self.grafts.keys())) if alone else facts.lone_output
        return replace(facts, heads=(*facts.heads, "grafts"), lone_output=lone)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network's own forward, up to its exit, then the branches.

        Returns:
            A single output unchanged, or :class:`Outputs` for several.
        """
        calls = _calls_in_export()
        depth = len(calls)
        try:
            output = super().forward(*args, **kwargs)  # type: ignore[misc]
        except Exit:
            while len(calls) > depth:
                calls.popitem()
            output = None if self.exit is None else self.exit.value
        if self.grafts:
            output = self._with_branches(output, self._mask(args, kwargs))
        self._clear()
        return output

    def _with_branches(self, output: Any, mask: torch.Tensor | None) -> Any:
        outputs = Outputs()
        if self.network_output is not None:
            if isinstance(output, Mapping):
                outputs.update(output)
            else:
                outputs[self.network_output] = output
        for name, branch in self.grafts.items():
            outputs[name] = branch(mask)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _mask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
        position = self.mask_position
        if position is not None and position < len(args):
            return cast("torch.Tensor", args[position])
        return kwargs.get("attention_mask")

    def _clear(self) -> None:
        """Clear the values of the taps, which would keep the whole autograd graph alive."""
        if self.exit is not None:
            self.exit.value = None
        for branch in self.grafts.values():
            cast("Branch", branch).tap.value = None


def _calls_in_export() -> OrderedDict[str, Any]:
    """Get the stack of modules being called that a non-strict ``torch.export`` keeps; elsewhere an empty one.

    Its tracer takes a module off when that returns, not when it is left by an exception, as by an early end.
    """
    if torch.compiler.is_dynamo_compiling() or not torch.compiler.is_exporting():
        return OrderedDict()
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    calls: OrderedDict[str, Any] | None = getattr(getattr(get_proxy_mode(), "tracer", None), "module_stack", None)
    return OrderedDict() if calls is None else calls


def _with_signature_of(original: Any) -> Any:
    @wraps(original)
    def forward(self: Grafted, *args: Any, **kwargs: Any) -> Any:
        return Grafted.forward(self, *args, **kwargs)

    return forward


class GraftedSequence(Grafted):
    """Extend an ``nn.Sequential`` like :class:`Grafted`, without running the grafts as layers."""

    def __iter__(self) -> Iterator[nn.Module]:
        children = cast("nn.Module", self)._modules
        return iter([m for name, m in children.items() if name not in ("grafts", "exit") and m is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Inserted(nn.Module):
    """Run a module after (or before) a site without changing the site's name.

    Args:
        module: Takes and returns the main tensor of the site's output (or its first argument).
    """

    alters: ClassVar[bool] = True
    """Its hook changes the output; see :func:`hook`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Change the site's output; a forward hook."""
        tensor = main_tensor(output)
        return output if tensor is None else with_main_tensor(output, self.module(tensor))

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Change the site's first argument; a forward pre-hook."""
        return (self.module(args[0]), *args[1:])


def hook(site: nn.Module, method: Any) -> None:
    """Register a bound method of a module as forward hook of ``site``.

    Hooks that change an output run first, taps later, and an exit last, in whichever order they were registered. Other
    hooks run in between. transformers registers its hooks that capture hidden states when a network first runs: before
    surgery if it has run already, after it if it was loaded.
    """
    site.register_forward_hook(method)
    hooks = cast("OrderedDict[int, Any]", site._forward_hooks)
    for key in sorted(hooks, key=lambda key: _turn(hooks[key])):
        hooks.move_to_end(key)


def unhook(site: nn.Module, method: Any) -> None:
    """Remove the hook that :func:`hook` registered."""
    for key in [key for key, registered in site._forward_hooks.items() if registered == method]:
        del site._forward_hooks[key]


def _turn(method: Any) -> int:
    owner = getattr(method, "__self__", None)
    if isinstance(owner, Tap):
        return 2 + owner.exits
    return 0 if getattr(owner, "alters", False) else 1


def graft(model: nn.Module) -> Grafted:
    """Turn ``model`` into a grafted network, in place; return it unchanged if it already is one.

    Raises:
        ValueError: The network already has attributes with the names that grafts need.
    """
    if isinstance(model, Grafted):
        return model
    for name in ATTRIBUTES:
        if hasattr(model, name):
            raise ValueError(f"{type(model).__name__} already has an attribute {name!r}")
    parameters = list(inspect.signature(model.forward).parameters)
    mixin = GraftedSequence if isinstance(model, nn.Sequential) else Grafted
    model.__class__ = mixed(mixin, type(model))
    grafted = cast("Grafted", model)
    grafted.grafts = nn.ModuleDict()
    grafted.exit = None
    grafted.network_output = TRUNK_OUTPUT
    grafted.mask_position = parameters.index("attention_mask") if "attention_mask" in parameters else None
    return grafted


def ungraft(model: Grafted) -> nn.Module:
    """Give a network without branches and early end its own class back, in place, and return it.

    It stays as it is if something else was mixed into its class since.
    """
    network = cast("nn.Module", model)
    mixin = type(model).__dict__.get("mixed_from", (None,))[0]
    if model.grafts or model.exit is not None or not (isinstance(mixin, type) and issubclass(mixin, Grafted)):
        return network
    for name in ATTRIBUTES:
        delattr(model, name)
    network.__class__ = base_of(type(model))
    return network
