"""reinit: initialise part of a trained network again."""

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
    """Initialise the parameters and statistics of part of a network again; the rest keeps its values.

    Values come from the initialisation of the architecture, where it has the tensor, else from the
    ``reset_parameters`` of the layer; they are drawn from the recipe's seed. The weights that they replace are
    never read.

    The upper layers are the ones most specific to the old task (Yosinski et al. 2014); with few samples a BERT is
    fine-tuned better, and more stably, with the last of them initialised again (Zhang et al. 2021, arXiv:2006.05987).

    Say what in exactly one way: ``sites`` or ``last``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"last": 2}]})

    sites: Selector | Annotated[list[Selector], Field(min_length=1)] | None = None
    """What to initialise again, with everything below it; ``!…`` leaves out."""
    last: PositiveInt | None = None
    """The last so many blocks, and all that runs behind the first of them, the head included."""

    @model_validator(mode="after")
    def _one_way(self) -> Reinit:
        if (self.sites is None) == (self.last is None):
            raise ValueError("give exactly one of sites and last")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Initialise the tensors of the sites again; see :class:`Operation`."""
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
    """Initialise the tensors that belong to ``sites`` themselves, not to modules below them, again.

    Args:
        surgery: Where the origins are kept.
        sites: The modules.
        keep: Names of tensors that stay as they are.

    Returns:
        The names of the tensors.

    Raises:
        OperationError: There are none, or nothing says how to initialise a parameter.
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
            "there is nothing to initialise: the sites hold no tensors",
            hint="surgeon inspect shows the sites and their parameters",
        )
    unknown = redraw(surgery, surgery.model, _built(surgery), names)
    tensors = dict(tensors_of(surgery.model))
    lost = [name for name in unknown if isinstance(tensors[name], nn.Parameter)]
    if lost:
        raise OperationError(
            f"nothing says how to initialise {len(lost)} parameters: {', '.join(lost[:3])}",
            hint="say what built the network (--arch), or leave them out: !SITE",
        )
    # what is no parameter and no layer resets (a table of positions) is a constant of the architecture
    return [name for name in names if name not in unknown]


def _built(surgery: Surgery) -> dict[str, torch.Tensor]:
    """Build the tensors that the network's architecture initialises, by their names in the whole network."""
    from surgeon.interfaces.composite import composite_of
    from surgeon.operations._shared.reinitialize import drawn_by

    facts = composite_of(surgery.model)
    tensors = drawn_by(surgery, facts.architecture or surgery.architecture)
    return {f"{facts.built}.{name}".lstrip("."): tensor for name, tensor in tensors.items()}


def _held_elsewhere(model: nn.Module, owners: set[int]) -> dict[int, str]:
    """The tensors that modules other than ``owners`` hold too, with their names there."""
    holders: dict[int, str] = {}
    for path, module in model.named_modules():
        if id(module) in owners:
            continue
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                holders.setdefault(id(tensor), f"{path}.{name}".lstrip("."))
    return holders
