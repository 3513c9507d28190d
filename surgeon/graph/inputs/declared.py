"""Make inputs from the keyword arguments that a family declares, with shapes from the network's config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from surgeon.errors import OperationError
from surgeon.families.expressions import Lookup, specs_of
from surgeon.families.inputs import BATCH, Inputs
from surgeon.families.registry import config_of, settings_of

if TYPE_CHECKING:
    from surgeon.interfaces.family import Family


def declared_inputs(model: nn.Module, family: Family, families: Sequence[Family]) -> Inputs:
    """Make the inputs that ``family`` declares for ``model``; several declarations of one name are alternatives.

    Raises:
        OperationError: A name in a declared shape has no value.
    """
    names = dict.fromkeys(argument.name for argument in family.inputs)
    lookup = _lookup(model, families)
    fed = {name: specs_of([a for a in family.inputs if a.name == name], lookup) for name in names}
    if missing := [name for name, specs in fed.items() if not specs]:
        shapes = ", ".join(repr(a.shape) for a in family.inputs if a.name == missing[0])
        raise OperationError(
            f"{family.name} declares {missing[0]} of shape {shapes}, but a name in it has no value in the config",
            hint=f"say it: `inputs: {{{missing[0]}: [2, 8]}}` in the recipe, inputs=… in Python",
        )
    origin = f"declared for {family.name}"
    settings = dict(family.settings)
    ways = [
        Inputs(
            kwargs={name: specs[min(index, len(specs) - 1)] for name, specs in fed.items()},
            origin=origin,
            settings=settings,
        )
        for index in range(max(len(specs) for specs in fed.values()))
    ]
    return replace(ways[0], alternatives=tuple(ways[1:]))


def _lookup(model: nn.Module, families: Sequence[Family]) -> Lookup:
    """Look up names in shapes: ``batch``, ``height`` and ``width`` of images, fields of the config, attributes."""
    holders = [config for config in (config_of(model, families), settings_of(model, families)) if config is not None]

    def lookup(names: tuple[str, ...]) -> int | None:
        for name in names:
            if name == "batch":
                return BATCH
            values = [holder.get(name) for holder in holders]
            if name in ("height", "width"):
                values = [*(holder.image_size for holder in holders), *values]
            if numbers := [value for value in values if isinstance(value, int)]:
                return numbers[0]
        return None

    return lookup
