"""Find the builder of torchvision, and its arguments, that makes a network as it was before surgery."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from surgeon.architectures.torchvision import FIXED, Torchvision
from surgeon.architectures.torchvision_names import ALWAYS, FROZEN_NORM, REPLACED
from surgeon.graph.skeleton import build_skeleton
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.composite import composite_of
from surgeon.interfaces.record import record_of


@dataclass(frozen=True)
class Builder:
    """A call of ``torchvision.models.get_model``.

    Attributes:
        name: The builder.
        arguments: Its keyword arguments; JSON can hold them.
        built: What it builds, without weights.
    """

    name: str
    arguments: dict[str, Any]
    built: nn.Module


def builders_of(model: nn.Module) -> list[Builder]:
    """List the builders of the networks of torchvision in ``model``: its own, and those of its columns."""
    different: list[Architecture] = []
    for architecture in _architectures(model):
        if architecture not in different:
            different.append(architecture)
    return [_builder(architecture.name, architecture.options) for architecture in different]


def _architectures(model: nn.Module) -> Iterator[Architecture]:
    record = record_of(model)
    candidates = [record.architecture if record is not None else Torchvision().of_module(model)]
    for module in model.modules():
        candidates += [entry.architecture for entry in composite_of(module).entries]
    for architecture in candidates:
        if architecture is not None and architecture.scheme == Torchvision.scheme:
            yield architecture


def _builder(name: str, options: dict[str, Any]) -> Builder:
    """Translate an architecture of surgeon; layers that only surgeon builds are described as changes."""
    from torchvision import models

    accepted = inspect.signature(inspect.unwrap(models.get_model_builder(name))).parameters
    arguments = {key: value for key, value in FIXED.items() if key in accepted}
    arguments |= dict.fromkeys(ALWAYS.get(name.removeprefix("quantized_"), {}), False)  # no initial values are needed
    arguments |= {key: value for key, value in options.items() if key not in (FROZEN_NORM, REPLACED)}
    built: nn.Module = build_skeleton(lambda: models.get_model(name, **arguments))
    return Builder(name, arguments, built)
