"""Count what one forward costs: floating-point operations by module, and the memory that training needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from surgeon.graph.trace import Trace, run_again

MOMENTS = 2
"""The values that Adam and AdamW keep for each trainable parameter, each as large as the parameter."""


@dataclass(frozen=True)
class Costs:
    """Hold what one forward of the traced inputs costs.

    Attributes:
        flops: The floating-point operations for one sample of each site and everything below it, as torch's
            ``FlopCounterMode`` counts them: matrix products, convolutions and attention, a multiplication and an
            addition each.
        samples: The batch size of the traced inputs.
        activations: The bytes that autograd keeps for the backward pass of that batch, in evaluation mode: dropout adds
            its masks; frozen parts keep none unless a trainable part runs before them.
        weights: The bytes of parameters and buffers.
        gradients: The bytes of the gradients of trainable parameters.
        optimizer: The bytes that AdamW keeps for the same.
    """

    flops: Mapping[str, int]
    samples: int
    activations: int | None
    weights: int
    gradients: int
    optimizer: int

    @property
    def training_bytes(self) -> int | None:
        """Sum what a training step with AdamW keeps in memory; None where the activations are not known."""
        if self.activations is None:
            return None
        return self.weights + self.gradients + self.optimizer + self.activations

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-able data; the FLOPs are those of the whole network, for one sample."""
        names = ("samples", "activations", "weights", "gradients", "optimizer", "training_bytes")
        return {"flops": self.flops.get("", 0), **{name: getattr(self, name) for name in names}}


def costs(model: nn.Module, traced: Trace) -> Costs:
    """Run ``model`` as it was traced, once to count operations and once to add up what autograd keeps.

    Args:
        model: The network, or its skeleton; its ``requires_grad`` flags say what trains.
        traced: A trace of it.

    Raises:
        Exception: Whatever the network raises; a network that was traced does not.
    """
    counter = FlopCounterMode(display=False)
    run_again(model, traced, counter)
    counted = {name: sum(by_kind.values()) for name, by_kind in counter.get_flop_counts().items()}
    samples = _batch_size(traced)
    flops = {name.partition(".")[2]: count // samples for name, count in counted.items() if name != "Global"}
    flops[""] = counter.get_total_flops() // samples
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return Costs(
        flops=flops,
        samples=samples,
        activations=_activations(model, traced),
        weights=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        gradients=trainable,
        optimizer=MOMENTS * trainable,
    )


def _batch_size(traced: Trace) -> int:
    """Count the samples of the traced inputs: a detector takes a list of pictures, and may return no box at all."""
    arguments = [*traced.inputs.args, *traced.inputs.kwargs.values()]
    lists = [len(value) for value in arguments if isinstance(value, list) and value]
    batches = [shape[0] for shape in traced.outputs.values() if shape]
    return max(1, next(iter([*lists, *batches]), 1))


def _activations(model: nn.Module, traced: Trace) -> int | None:
    """Add up the bytes that autograd keeps, each storage once; None where the network does not run with gradients."""
    storages: dict[int, int] = {}
    alive: list[torch.Tensor] = []
    trainable = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}

    @contextmanager
    def recording() -> Iterator[None]:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(name in trainable)  # these are substitutes, which all start frozen
        weights = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                storages[storage._cdata] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield

    try:
        run_again(model, traced, recording())
    except Exception:  # a network that only runs without gradients does not train either
        return None
    return sum(storages.values())
