"""Call a network with the inputs of a batch, and name the tensors that it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from surgeon.errors import TrainingError
from surgeon.interfaces.composite import composite_of, has_part

Batch = Mapping[str, Tensor]
MAIN = ("logits", "out")
"""The names of a network's main output in transformers and, for segmentation, in torchvision."""


def named_outputs(output: Any, lone: str = MAIN[0]) -> dict[str, Tensor]:
    """Name the tensors that a model returned; a single tensor is called ``lone``."""
    if isinstance(output, Tensor):
        return {lone: output}
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        output = output._asdict()
    elif isinstance(output, Sequence):
        output = {str(position): value for position, value in enumerate(output)}
    if not isinstance(output, Mapping):
        raise TrainingError(f"the model returns a {type(output).__name__}, which has no named tensors")
    return {name: value for name, value in output.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Call:
    """How to call a model with a batch, and how to name its outputs."""

    inputs: tuple[str, ...]
    """The columns of the batch that are inputs."""
    by_name: bool
    """Whether to pass them by keyword; otherwise in order."""
    lone: str
    """The name of a single output tensor."""

    @classmethod
    def of(cls, model: nn.Module, inputs: Sequence[str]) -> Call:
        """Read it from ``model``, before wrappers (DDP, torch.compile) hide the signature."""
        return cls(tuple(inputs), set(inputs) <= keywords_of(model), composite_of(model).lone_output or MAIN[0])

    def __call__(self, model: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Run ``model``, or its wrapper, on the input columns of ``batch``."""
        if self.by_name:
            return named_outputs(model(**{name: batch[name] for name in self.inputs}), self.lone)
        return named_outputs(model(*(batch[name] for name in self.inputs)), self.lone)


def keywords_of(model: nn.Module) -> set[str]:
    """Return the names of a forward's keyword arguments.

    They are those of its signature, those that a pre-hook of a part reads (such as the stem of a sample) and, if the
    signature has ``**kwargs``, those that all parts accept that they are passed to.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    facts = composite_of(model)
    names.update(facts.keywords)
    for hook in model._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, nn.Module):
            names.update(composite_of(owner).keywords)
    parts = [model.get_submodule(entry.site) for entry in facts.shared if has_part(model, entry.site)]
    if parts and any(p.kind is p.VAR_KEYWORD for p in parameters):
        names |= set.intersection(*(keywords_of(part) for part in parts))
    return names
