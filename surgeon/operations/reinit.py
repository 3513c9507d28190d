"""reinit: reinitialise part of a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch
    from torch import nn

    from surgeon.graph.sites import Site
    from surgeon.surgery.context import Surgery


class Reinit(Operation):
    """Reinitialise the parameters and statistics of part of a network; the rest keeps its values.

    Values come from the initialisation of the architecture if it has the tensor, else from the ``reset_parameters``
    of the layer, with the recipe's seed. The weights that they replace are never read.

    The upper layers are the most specific to the old task (Yosinski et al. 2014). With few samples, fine-tuning BERT
    is better and more stable if its last layers are reinitialised (Zhang et al. 2021, arXiv:2006.05987).

    Give exactly one of ``sites`` and ``last``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"last": 2}]})

    sites: Selector | Annotated[list[Selector], Field(min_length=1)] | None = None
    """The modules to reinitialise, with their submodules; ``!…`` excludes."""
    last: PositiveInt | None = None
    """The number of last blocks to reinitialise; everything that runs after the first of them, such as the head, is
    reinitialised too."""

    @model_validator(mode="after")
    def _one_way(self) -> Reinit:
        if (self.sites is None) == (self.last is None):
            raise ValueError("give exactly one of sites and last")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Reinitialise the tensors of the sites; see :class:`Operation`."""
        from surgeon.operations._shared.selection import as_list, last_blocks, with_exceptions

        if self.last is not None:
            sites = last_blocks(surgery, self.last)
        else:
            sites, _ = with_exceptions(surgery, as_list(self.sites))
        names = set(reinitialise(surgery, sites))
        frozen = sum(not p.requires_grad for n, p in surgery.model.named_parameters() if n in names)
        if frozen:
            surgery.note(f"{frozen} of the initialised parameters are frozen, and stay random")
        return surgery.model


def reinitialise(surgery: Surgery, sites: Sequence[Site], keep: Collection[str] = ()) -> list[str]:
    """Reinitialise the tensors that ``sites`` hold directly, not those of their submodules.

    Args:
        surgery: Records the origins of the tensors.
        sites: The modules.
        keep: Names of tensors to leave unchanged.

    Returns:
        The names of the reinitialised tensors.

    Raises:
        OperationError: The sites hold no tensors, or a parameter has no known initialisation.
    """
    from torch import nn

    from surgeon.graph.tensors import aliases_of, tensors_of
    from surgeon.operations._shared.reinitialize import redraw

    owners = {id(site.module) for site in sites}
    modules = dict(surgery.model.named_modules())
    shared = _held_elsewhere(surgery.model, owners)
    names = []
    for name, tensor in tensors_of(surgery.model):
        if id(modules[name.rpartition(".")[0]]) not in owners or name in keep:
            continue
        if id(tensor) in shared:
            surgery.note(f"{name} is one tensor with {shared[id(tensor)]}, which keeps its values")
            continue
        names.append(name)
    for alias, first in aliases_of(surgery.model).items():
        if id(modules.get(alias.rpartition(".")[0])) in owners and first not in names:
            surgery.note(f"{alias} is one tensor with {first}, which keeps its values")
    if not names:
        raise OperationError(
            "nothing to reinitialise: the sites hold no tensors",
            hint="surgeon inspect shows the sites and their parameters",
        )
    unknown = redraw(surgery, surgery.model, _built(surgery), names)
    tensors = dict(tensors_of(surgery.model))
    uninitialised = [name for name in unknown if isinstance(tensors[name], nn.Parameter)]
    if uninitialised:
        raise OperationError(
            f"cannot reinitialise {len(uninitialised)} parameters: {', '.join(uninitialised[:3])}",
            hint="say what built the network (--arch), or exclude them: !SITE",
        )
    # a buffer that no layer resets (a table of positions) is a constant of the architecture
    return [name for name in names if name not in unknown]


def _built(surgery: Surgery) -> dict[str, torch.Tensor]:
    """Build the tensors that the network's architecture initialises, by their names in the whole network."""
    from surgeon.interfaces.composite import composite_of
    from surgeon.operations._shared.reinitialize import drawn_by

    facts = composite_of(surgery.model)
    tensors = drawn_by(surgery, facts.architecture or surgery.architecture)
    return {f"{facts.built}.{name}".lstrip("."): tensor for name, tensor in tensors.items()}


def _held_elsewhere(model: nn.Module, owners: set[int]) -> dict[int, str]:
    """Map the ``id`` of each tensor that modules other than ``owners`` hold to its name there."""
    holders: dict[int, str] = {}
    for path, module in model.named_modules():
        if id(module) in owners:
            continue
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                holders.setdefault(id(tensor), f"{path}.{name}".lstrip("."))
    return holders
