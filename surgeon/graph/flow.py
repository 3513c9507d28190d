"""Record which module's output each module of a network reads: the network as a graph.

Modules without children are nodes. So are modules that compute without calling their children (MultiheadAttention uses
the weights of ``out_proj`` and never calls it), and *joins*: computations of a parent module on the outputs of several
modules, such as the addition of a residual connection.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils import _pytree

from surgeon.graph.trace import Trace, run_again
from surgeon.nn.mixing import base_of

MOST_NAMES = 3
"""The functions that the label of a join lists."""


@dataclass(frozen=True)
class Edge:
    """Say that one node reads what another one produced.

    Attributes:
        source: The node that produced it.
        target: The node that reads it.
        shape: The shape of the tensor that is read.
    """

    source: str
    target: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FlowGraph:
    """Hold what flows where in one forward.

    Attributes:
        nodes: Sites of modules, ``SITE~2`` for the second call of one without parameters, ``SITE#1`` for the first
            join in a module, ``<NAME`` for an input and ``>NAME`` for an output, in the order of first use.
        joins: The functions that each join computes.
        edges: Which node reads from which.
    """

    nodes: tuple[str, ...]
    joins: Mapping[str, str]
    edges: tuple[Edge, ...]


def flow_graph(model: nn.Module, traced: Trace) -> FlowGraph:
    """Run ``model`` once more as it was traced, and record its graph.

    Args:
        model: The network, or its skeleton.
        traced: A trace of it.

    Raises:
        Exception: Whatever the network raises; a network that was traced does not.
    """
    recorder = _FlowRecorder(model)
    outputs = run_again(model, traced, recorder.recording())
    for name, tensor in outputs.items():
        recorder.read(f">{name}", [tensor])
    return _contract(recorder)


@dataclass
class _Call:
    """A running call of a module."""

    site: str
    inputs: list[tuple[str, tuple[int, ...]]]
    """The nodes that its arguments come from, with the shapes of the arguments."""
    nodes: int
    """How many reads were recorded before it started."""


@dataclass
class _FlowRecorder:
    model: nn.Module
    reads: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """Each pair of nodes of which the second reads from the first, with the shape."""
    joins: dict[str, list[str]] = field(default_factory=dict)
    nodes: dict[str, None] = field(default_factory=dict)
    _producers: dict[int, str] = field(default_factory=dict)
    _alive: list[torch.Tensor] = field(default_factory=list)
    """The tensors with a producer, so that none is freed and its id used again."""
    _calls: list[_Call] = field(default_factory=list)
    _events: int = 0
    _finished: dict[str, int] = field(default_factory=dict)
    """How often each site has been a node."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record every module and function that runs within the block.

        The hooks stay on the modules; :func:`surgeon.graph.trace.run_again` restores those.
        """
        for site, module in self.model.named_modules():
            module.register_forward_pre_hook(self._starts(site), with_kwargs=True, prepend=True)
            module.register_forward_hook(self._finishes(site), with_kwargs=True, prepend=True)
        with _Functions(self):
            yield

    def read(self, node: str, values: Iterable[Any]) -> None:
        """Record that ``node`` reads from whatever produced ``values``."""
        self.nodes.setdefault(node)
        for producer, shape in self.producers(values):
            self.reads.setdefault((producer, node), shape)

    def producers(self, values: Iterable[Any]) -> list[tuple[str, tuple[int, ...]]]:
        """List the nodes that produced the tensors among ``values``, with the tensors' shapes."""
        tensors = (value for value in values if isinstance(value, torch.Tensor))
        pairs = ((self._producers.get(id(tensor)), tuple(tensor.shape)) for tensor in tensors)
        return [(producer, shape) for producer, shape in pairs if producer is not None]

    def produce(self, node: str, values: Iterable[Any]) -> None:
        """Record that ``node`` produced the tensors among ``values``."""
        self.nodes.setdefault(node)
        for tensor in values:
            if isinstance(tensor, torch.Tensor):
                self._producers[id(tensor)] = node
                self._alive.append(tensor)

    def compute(self, function: str, arguments: list[Any], results: list[Any]) -> None:
        """Record one call of a function outside of modules without children."""
        sources = self.producers(arguments)
        names = list(dict.fromkeys(name for name, _ in sources))
        if not names:
            return
        if len(names) == 1:
            self.produce(names[0], results)
            return
        site = self._calls[-1].site if self._calls else ""
        node = f"{site}#{len(self.joins) + 1}"
        self.joins[node] = [function]
        self._events += 1
        self.read(node, arguments)
        self.produce(node, results)

    def _starts(self, site: str) -> Any:
        def start(module: nn.Module, args: Any, kwargs: Any) -> None:
            values = _pytree.tree_leaves((args, kwargs))
            if not self._calls and site == "":
                self._name_inputs(module, args, kwargs)
            self._calls.append(_Call(site, self.producers(values), self._events))

        return start

    def _finishes(self, site: str) -> Any:
        def finish(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            while self._calls and self._calls[-1].site != site:
                self._calls.pop()  # its forward was ended by an exception
            if not self._calls:
                return
            call = self._calls.pop()
            if call.nodes != self._events:
                return  # what it computed is recorded already: by its children, or as joins
            self._events += 1
            self._finished[site] = number = self._finished.get(site, 0) + 1
            again = number > 1 and not any(True for _ in module.parameters())
            node = f"{site}~{number}" if again else site
            self.nodes.setdefault(node)
            for producer, shape in call.inputs:
                self.reads.setdefault((producer, node), shape)
            self.produce(node, _pytree.tree_leaves(output))

        return finish

    def _name_inputs(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        forward = cast(
            "type[nn.Module]", base_of(type(module))
        ).forward  # a class that surgeon mixed takes any arguments
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        for position, value in enumerate(args):
            name = names[position] if position < len(names) else f"input {position}" if position else "input"
            self.produce(f"<{name}", _pytree.tree_leaves(value))
        for name, value in kwargs.items():
            tensors = [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
            if tensors:
                self.produce(f"<{name}", tensors)


class _Functions(TorchFunctionMode):
    """See every function of torch that Python code calls."""

    def __init__(self, recorder: _FlowRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = _pytree.tree_leaves(result)
        if any(isinstance(value, torch.Tensor) for value in results):
            self._recorder.compute(_function_name(func), _pytree.tree_leaves((args, kwargs)), results)
        return result


def _function_name(function: Any) -> str:
    name = cast("str", (resolve_name(function) or getattr(function, "__name__", "computes")).rsplit(".", 1)[-1])
    return name.strip("_").removeprefix("i") if name.startswith("__i") else name.strip("_")


def _contract(recorder: _FlowRecorder) -> FlowGraph:
    """Make one join of joins of the same module that follow one another, with no module between them."""
    after: dict[str, set[str]] = {node: set() for node in recorder.nodes}
    for source, target in recorder.reads:
        after[source].add(target)
    position = {node: place for place, node in enumerate(recorder.nodes)}
    same: dict[str, str] = {}

    def reaches(start: str, end: str) -> bool:
        """Whether a path of two or more edges leads from ``start`` to ``end``."""
        visited: set[str] = set()
        waiting = [node for node in after[start] if node != end]
        while waiting:
            node = waiting.pop()
            if node in visited or position[node] > position[end]:
                continue
            if end in after[node]:
                return True
            visited.add(node)
            waiting.extend(after[node])
        return False

    for late in reversed(list(recorder.joins)):
        for early in [node for node, targets in after.items() if late in targets and node in recorder.joins]:
            if _module_of(early) == _module_of(late) and not reaches(early, late):
                after[early] = (after[early] | after.pop(late)) - {early, late}
                for targets in after.values():
                    if late in targets:
                        targets.remove(late)
                        targets.add(early)
                after[early].discard(early)
                same[late] = early
                break

    def final(node: str) -> str:
        while node in same:
            node = same[node]
        return node

    names: dict[str, dict[str, None]] = {}
    for node, functions in recorder.joins.items():
        names.setdefault(final(node), {}).update(dict.fromkeys(functions))
    numbers: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for node in names:
        site = _module_of(node)
        numbers[site] = numbers.get(site, 0) + 1
        renamed[node] = f"{site}#{numbers[site]}"

    def name(node: str) -> str:
        return renamed.get(final(node), final(node))

    edges: dict[tuple[str, str], Edge] = {}
    for (source, target), shape in recorder.reads.items():
        if (pair := (name(source), name(target))) not in edges and (pair[0] != pair[1] or source == target):
            edges[pair] = Edge(*pair, shape)
    return FlowGraph(
        nodes=tuple(dict.fromkeys(name(node) for node in recorder.nodes)),
        joins={renamed[node]: _label(functions) for node, functions in names.items()},
        edges=tuple(edges.values()),
    )


def _module_of(join: str) -> str:
    return join.rsplit("#", 1)[0]


def _label(functions: Iterable[str]) -> str:
    listed = list(functions)
    return " · ".join(listed if len(listed) <= MOST_NAMES else [*listed[: MOST_NAMES - 1], "…", listed[-1]])
