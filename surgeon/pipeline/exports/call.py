"""Prepare the calls of a network that an export is traced with and compared on."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from surgeon.errors import ExportError
from surgeon.families.inputs import Inputs
from surgeon.pipeline.exports.consumer import flat
from surgeon.surgery.inspection import Inspection

LONE = "output"
"""The name of the output of a network that returns a single tensor."""
MASK = "attention_mask"

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Plain(nn.Module):
    """Run a network and return plain tensors: one tensor unchanged, several in a dictionary by name.

    Output classes of surgeon or transformers would have to be importable where the export is loaded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network on its own arguments."""
        output = self.model(*args, **kwargs)
        return output if isinstance(output, torch.Tensor) else flat(output)

    def take(self, names: Iterable[str]) -> None:
        """Declare ``names`` as the parameters of the forward, which torch.export uses to name a program's inputs.

        A program exported from a forward with ``**kwargs`` cannot be called after saving (torch 2.14).
        """
        parameter = inspect.Parameter
        kind = parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([parameter(name, kind) for name in ("self", *names)])

        def forward(self: Plain, *args: Any, **kwargs: Any) -> Any:
            return Plain.forward(self, *args, **kwargs)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.__class__ = type("Plain", (Plain,), {"forward": forward, "__module__": __name__})


@dataclass(frozen=True)
class Call:
    """A network and the arguments to run it on.

    Attributes:
        network: A copy of the network in eval mode on the CPU.
        args: The positional arguments.
        kwargs: The keyword arguments.
        parameters: The names of all arguments, in order.
        names: The names of all tensors among the arguments, in order.
        batch: The batch size, dimension 0 of every tensor; None if they differ.
        length: The number of tokens, dimension 1 of every tensor; None if the inputs are not tokens.
    """

    network: Plain
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    parameters: tuple[str, ...]
    names: tuple[str, ...]
    batch: int | None
    length: int | None

    @property
    def traced(self) -> Arguments:
        """The arguments, positional and by keyword."""
        return self.args, self.kwargs

    def shapes(self, dynamic: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
        """Return the shape of each tensor among the arguments, with the names of the ``dynamic`` sizes."""
        shapes = {}
        for name, tensor in zip(self.names, leaves(self.traced), strict=True):
            shape: list[int | str] = list(tensor.shape)
            for at, size in enumerate(("batch", "length")[: tensor.ndim]):
                shape[at] = size if size in dynamic else shape[at]
            shapes[name] = tuple(shape)
        return shapes

    def run(self, arguments: Arguments) -> dict[str, torch.Tensor]:
        """Run the network and return its output tensors by name."""
        args, kwargs = arguments
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return {name: tensor.clone() for name, tensor in flat(self.network(*args, **kwargs)).items()}

    def cases(self, *, batch: bool, length: bool) -> Iterator[Arguments]:
        """Yield the arguments to compare on: the traced ones, then other sizes of dynamic dimensions."""
        padded = _with_padding(self.traced)
        yield self.traced
        if MASK in self.kwargs:
            yield padded
        for rows in (1, 3) if batch else ():
            yield _pytree.tree_map(lambda tensor, rows=rows: _sized(tensor, 0, rows), padded)
        if length and self.length is not None:
            tokens = self.length - 3 if self.length > 3 else self.length + 1
            yield _pytree.tree_map(lambda tensor: _sized(tensor, 1, tokens), padded)


def call_of(model: nn.Module, inspection: Inspection) -> Call:
    """Prepare the call to export: the first inputs that the network runs on, preferring those with a padding mask.

    Raises:
        ExportError: The network runs on none of the inputs.
        OperationError: The inputs of the network are unknown.
    """
    network = Plain(copy.deepcopy(model).cpu().eval())
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    refusal = ""
    feed = inspection.inputs()
    for inputs in sorted(feed.candidates(), key=lambda inputs: MASK not in inputs.kwargs):
        call = _call(network, inputs, dtype)
        try:
            outputs = call.run(call.traced)
            call.run(_with_padding(call.traced))  # networks drop a mask of ones without checking its length
        except Exception as error:  # a network may raise anything on inputs that do not fit it
            refusal = refusal or first_line(error)
            continue
        if not outputs:
            raise ExportError(f"{type(model).__name__} returns no tensor, so there is nothing to export")
        return call
    raise ExportError(
        f"the network does not run on inputs {feed.origin}: {refusal}",
        hint="declare its inputs in the recipe: inputs:",
    )


def _call(network: Plain, inputs: Inputs, dtype: torch.dtype) -> Call:
    inputs.set(network.model)
    args, kwargs = inputs.tensors("cpu", dtype)
    parameters = [
        parameter.name
        for parameter in inspect.signature(network.model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    called = {(parameters[at] if at < len(parameters) else f"input_{at}"): value for at, value in enumerate(args)}
    names, tensors = [], []
    for name, value in {**called, **kwargs}.items():
        leaves = [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
        names += [name] if leaves == [value] or len(leaves) == 1 else [f"{name}_{at}" for at in range(len(leaves))]
        tensors += leaves
    arguments = {**called, **kwargs}
    network.take(arguments)
    return Call(network, args, kwargs, tuple(arguments), tuple(names), _shared_size(tensors, 0), _tokens(tensors))


def _shared_size(tensors: list[torch.Tensor], dimension: int) -> int | None:
    sizes = {tensor.shape[dimension] if tensor.ndim > dimension else None for tensor in tensors}
    return sizes.pop() if len(sizes) == 1 else None


def _tokens(tensors: list[torch.Tensor]) -> int | None:
    are_tokens = all(tensor.ndim == 2 and not tensor.is_floating_point() for tensor in tensors)
    return _shared_size(tensors, 1) if are_tokens else None


def _sized(tensor: Any, dimension: int, size: int) -> Any:
    """Repeat a tensor along a dimension and cut it to a size."""
    if not isinstance(tensor, torch.Tensor):
        return tensor
    times = -(-size // tensor.shape[dimension])
    return torch.cat([tensor] * times, dimension).narrow(dimension, 0, size).contiguous()


def _with_padding(arguments: Arguments) -> Arguments:
    """Mask the last token of the first row, so that an export that ignores the mask is detected."""
    args, kwargs = arguments
    mask = kwargs.get(MASK)
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2 or mask.shape[1] < 2:
        return arguments
    padded = mask.clone()
    padded[0, -1] = 0
    return args, {**kwargs, MASK: padded}


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def leaves(arguments: Arguments) -> list[torch.Tensor]:
    """Return the tensors among arguments, in the order of :attr:`Call.names`."""
    return [leaf for leaf in _pytree.tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
