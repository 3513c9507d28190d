"""What surgery adds to a network's forward: taps that read, branches that are fed, an exit that ends it.

A grafted network is an instance of its own class with :class:`Grafted` mixed in, so that no name in its
tree, and no key in its state dict, changes. Hooks are bound methods of modules in the same tree: they
survive ``deepcopy``, pickling, ``torch.compile(fullgraph=True)`` and ``torch.export``.
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
from surgeon.nn.mixing import Mixin, mixed
from surgeon.nn.outputs import Outputs

TRUNK_OUTPUT = "logits"


class Exit(BaseException):
    """Ends a forward. A BaseException, so that a network's own ``except Exception`` lets it pass."""


class Tap(nn.Module):
    """Reads what a site produced during the forward.

    Args:
        copies: Keep a copy, because a later in-place operation overwrites what the site produced.
        exits: End the forward here.
    """

    def __init__(self, *, copies: bool = False, exits: bool = False) -> None:
        super().__init__()
        self.copies = copies
        self.exits = exits
        self.value: Any = None

    def read(self, module: nn.Module, args: Any, output: Any) -> None:
        """The forward hook."""
        tensor = main_tensor(output)
        # a network that ends in a dictionary of feature maps gives all of them
        several = self.exits and isinstance(output, Mapping) and not any(name in output for name in PRINCIPAL)
        value = output if tensor is None or several else tensor
        self.value = value.clone() if self.copies and isinstance(value, torch.Tensor) else value
        if self.exits:
            raise Exit

    def extra_repr(self) -> str:
        """Show what is not the default."""
        return ", ".join(name for name in ("copies", "exits") if getattr(self, name))


class Branch(nn.Module):
    """A module fed by a tap, whose result is one more named output.

    Args:
        tap: Where the features come from.
        head: Takes the tapped features ``(batch, …)``; one that declares ``takes_mask = True`` is also
            given the ``attention_mask`` of the network's forward, or None.
    """

    def __init__(self, tap: Tap, head: nn.Module) -> None:
        super().__init__()
        self.tap = tap
        self.head = head

    def forward(self, mask: torch.Tensor | None = None) -> Any:
        """The branch's output for what its tap has just read."""
        if getattr(self.head, "takes_mask", False):
            return self.head(self.tap.value, mask)
        return self.head(self.tap.value)


class Grafted(Mixin):
    """Mixed into the class of a network that ends early or has branches.

    Attributes:
        grafts: The branches by the name of their output.
        exit: The tap that ends the forward, or None.
        network_output: The name of the network's own output where there are several, or None if it is dropped.
        mask_position: Where ``attention_mask`` stands among the forward's positional arguments, if anywhere.
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
        """Describe the branches, on top of what the network says of itself: their heads, and a lone one's name."""
        inherited = getattr(super(), METHOD, None)
        facts: Composite = ORDINARY if inherited is None else inherited()
        if not self.grafts:
            return facts
        alone = self.network_output is None and len(self.grafts) == 1
        lone = next(iter(self.grafts.keys())) if alone else facts.lone_output
        return replace(facts, heads=(*facts.heads, "grafts"), lone_output=lone)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own forward, up to its exit, then the branches.

        Returns:
            The one output as it is, or :class:`Outputs` where there are several.
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
        """Let go of what the taps hold: it keeps a whole autograd graph alive."""
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


def _with_signature_of(own: Any) -> Any:
    @wraps(own)
    def forward(self: Grafted, *args: Any, **kwargs: Any) -> Any:
        return Grafted.forward(self, *args, **kwargs)

    return forward


class GraftedSequence(Grafted):
    """:class:`Grafted` for an ``nn.Sequential``, which would run the grafts as further layers."""

    def __iter__(self) -> Iterator[nn.Module]:
        children = cast("nn.Module", self)._modules
        return iter([m for name, m in children.items() if name not in ("grafts", "exit") and m is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Inserted(nn.Module):
    """Puts a module behind (or before) another without a new name for that one.

    Args:
        module: Takes and returns the main tensor of what the site returns (or of its first argument).
    """

    alters: ClassVar[bool] = True
    """It changes what others read; see :func:`hook`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The forward hook of the site."""
        tensor = main_tensor(output)
        return output if tensor is None else with_main_tensor(output, self.module(tensor))

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook of the site."""
        return (self.module(args[0]), *args[1:])


def hook(site: nn.Module, method: Any) -> None:
    """Let a bound method of a module hear what ``site`` produces.

    What changes an output comes before what reads it, whichever was there first, and an exit comes last. Hooks of
    others lie between the two: transformers hooks what captures hidden states into a network when it first runs, so
    before surgery in one that has run already, and after it in one that is loaded.
    """
    site.register_forward_hook(method)
    hooks = cast("OrderedDict[int, Any]", site._forward_hooks)
    for key in sorted(hooks, key=lambda key: _turn(hooks[key])):
        hooks.move_to_end(key)


def unhook(site: nn.Module, method: Any) -> None:
    """Let the method hear no more; see :func:`hook`."""
    for key in [key for key, known in site._forward_hooks.items() if known == method]:
        del site._forward_hooks[key]


def _turn(method: Any) -> int:
    owner = getattr(method, "__self__", None)
    if isinstance(owner, Tap):
        return 2 + owner.exits
    return 0 if getattr(owner, "alters", False) else 1


def graft(model: nn.Module) -> Grafted:
    """Turn ``model`` into a grafted network, in place; one that is grafted already is returned as it is.

    Raises:
        ValueError: The network has attributes of its own under the names that grafts need.
    """
    if isinstance(model, Grafted):
        return model
    for name in ("grafts", "exit", "network_output", "mask_position"):
        if hasattr(model, name):
            raise ValueError(f"{type(model).__name__} has an attribute {name!r} of its own")
    parameters = list(inspect.signature(model.forward).parameters)
    mixin = GraftedSequence if isinstance(model, nn.Sequential) else Grafted
    model.__class__ = mixed(mixin, type(model))
    grafted = cast("Grafted", model)
    grafted.grafts = nn.ModuleDict()
    grafted.exit = None
    grafted.network_output = TRUNK_OUTPUT
    grafted.mask_position = parameters.index("attention_mask") if "attention_mask" in parameters else None
    return grafted
