"""stems: add a separate stem for each task or language before a shared trunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.operations._shared.head_options import Name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from surgeon.graph.sites import Site
    from surgeon.surgery.context import Surgery


class Stems(Operation):
    """Replace the stem by several named stems, which share the trunk.

    Each language or kind of input gets its own lower layers before a shared trunk (Goodfellow et al. 2016, section
    15.2). The argument ``stem`` of the network's forward selects the stem for the batch, ``model(x, stem="greek")``,
    or for each sample, with a tensor of stem numbers. The first stem is the trained one; the others are initialised as
    copies of it, or from scratch. To give a stem other channels, use adapt_input with ``at: conv1.stems.greek``.

    Shapes: those of the original stem, in each of them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"stems": ["latin", "greek"], "at": "conv1"}]})

    stems: dict[Name, Literal["copy", "reinit"]] | Annotated[list[Name], Field(min_length=2)]
    """The names of the stems; the first is the existing one. Or a mapping of names to copy or reinit."""
    at: Selector | Annotated[list[Selector], Field(min_length=1)] = "@stem"
    """The module of which each stem has its own, or several modules (a convolution and its norm)."""

    @model_validator(mode="after")
    def _names(self) -> Stems:
        names = list(self.stems)
        if len(set(names)) < max(2, len(names)):
            raise ValueError("give at least two stems, with different names")
        bad = [name for name in names if not name.isidentifier() or hasattr(dict, name)]
        if bad:
            raise ValueError(f"{bad[0]!r} cannot name a stem: use letters, digits and _")
        if isinstance(self.stems, dict) and self.stems[names[0]] != "copy":
            raise ValueError(f"the first stem, {names[0]}, is the existing one: use the operation reinit on it")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Replace the stem's modules by switches; see :class:`Operation`."""
        from surgeon.nn.stems import ARGUMENT, StemSwitch
        from surgeon.operations._shared.selection import as_list

        if any(isinstance(module, StemSwitch) for module in model.modules()):
            raise OperationError("the network already has several stems", hint="name all sites at once: at: [SITE, …]")
        sites = surgery.select(as_list(self.at))
        _refuse_nested(sites)
        starts = self.stems if isinstance(self.stems, dict) else dict.fromkeys(self.stems, "copy")
        first, *other_stems = starts
        switches = []
        for site in sites:
            twins = {name: _twin(surgery, site, starts[name]) for name in other_stems}
            switches.append(StemSwitch({first: site.module, **twins}))
            surgery.replace(site, switches[-1])
        switches[0].others = switches[1:]
        surgery.hook("", switches[0].choose, where="before", kwargs=True)
        surgery.recall("outputs", lambda: _outputs(surgery, sites))
        surgery.note(f"{ARGUMENT}={first!r} by default; the forward also takes {', '.join(other_stems)}")
        return surgery.model


def _refuse_nested(sites: list[Site]) -> None:
    for site in sites:
        inside = [inner for inner in sites if inner.name.startswith(f"{site.name}.")]
        if inside or not site.name:
            part = inside[0] if inside else "everything"
            raise OperationError(f"{site} contains {part}", hint="name only the module that is the stem")


def _twin(surgery: Surgery, site: Site, start: str) -> nn.Module:
    """Make another stem with the structure of the one at ``site``."""
    from surgeon.graph.skeleton import skeleton_of
    from surgeon.graph.tensors import tensors_of
    from surgeon.operations._shared.reinitialize import disconnect, drawn_by, redraw

    twin = disconnect(skeleton_of(site.module))
    if start == "copy":
        values = dict(tensors_of(site.module))
        for name, tensor in tensors_of(twin):
            surgery.derive(tensor, [values[name]], _same)
        return twin
    dot = f"{site.name}."
    built = {n.removeprefix(dot): t for n, t in drawn_by(surgery, surgery.architecture).items() if n.startswith(dot)}
    original = dict(tensors_of(site.module))
    tensors = dict(tensors_of(twin))
    uninitialised = []
    for name in redraw(surgery, twin, built):
        surgery.derive(tensors[name], [original[name]], _same)
        if name in dict(twin.named_parameters()):
            uninitialised.append(f"{dot}{name}")
    if uninitialised:
        raise OperationError(
            f"cannot reinitialise {len(uninitialised)} parameters: {', '.join(uninitialised[:3])}",
            hint="say what built the network (--arch), or make the stem a copy",
        )
    return twin


def _outputs(surgery: Surgery, sites: list[Site]) -> dict[str, list[int]]:
    try:
        return {name: list(shape) for name, shape in surgery.trace().outputs.items()}
    except OperationError as error:
        raise OperationError(
            f"the network does not run with a choice of stems at {', '.join(map(str, sites))}: {error.message}",
            hint="name the module that is the stem: at: SITE",
        ) from error


def _same(values: torch.Tensor) -> torch.Tensor:
    return values
