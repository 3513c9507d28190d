"""transfer: copy layers from another trained network into this one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from surgeon.errors import OperationError, suggest
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import BesideRecipe, Selector
from surgeon.operations._shared.head_options import Name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from surgeon.architectures.donor import Donor
    from surgeon.graph.sites import Site
    from surgeon.surgery.context import Surgery

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches, which old files lack and the forward pass does not need."""


class Transfer(Operation):
    """Copy layers, with their parameters and statistics, from a donor into this network; optionally freeze them.

    This is layer transfer (Yosinski et al. 2014): the first k layers come from a network trained on another
    task (``up_to``), the others keep their values or are reinitialised (``rest: reinit``). The donor may be anything
    that surgeon opens. Only the copied tensors are read from it, and the manifest records its fingerprint.

    Shapes: a copied tensor has the same shape in both networks.

    Give exactly one of ``sites``, ``up_to`` and ``map``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"donor": "other.safetensors", "up_to": "layer2"}]})

    donor: Annotated[Name, BesideRecipe()]
    """The network to copy from: a file, a folder, torchvision/NAME@WEIGHTS, hf:ORG/NAME, an artifact. A file is
    looked for next to the recipe first."""
    sites: Selector | Annotated[list[Selector], Field(min_length=1)] | None = None
    """The modules to copy, with their submodules, from the sites of the same names in the donor; ``!…`` excludes."""
    up_to: Selector | None = None
    """Copy everything that runs up to and including this site, in executed order."""
    map: dict[Name, str] | None = Field(default=None, min_length=1)
    """Sites of this network, with their names in the donor; ``.`` is the whole donor."""
    frozen: bool = False
    """Whether to freeze the copied parameters and the statistics of norm layers."""
    rest: Literal["keep", "reinit"] = "keep"
    """What happens to the other tensors: they keep their values, or are reinitialised as reinit does."""

    @model_validator(mode="after")
    def _one_way(self) -> Transfer:
        options = [name for name in ("sites", "up_to", "map") if getattr(self, name) is not None]
        if len(options) != 1:
            says = f"not {' and '.join(options)}" if options else "and none is given"
            raise ValueError(f"exactly one of sites, up_to and map says what to copy, {says}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Copy the tensors; see :class:`Operation`."""
        import torch

        from surgeon.graph.tensors import tensors_of
        from surgeon.operations._shared.selection import less
        from surgeon.operations.reinit import reinitialise

        sites, names = self._chosen(surgery)
        matched = surgery.recall("donor", lambda: self._matched(surgery, names), subject=self.donor, outside=True)
        tensors = dict(tensors_of(surgery.model))
        for name, donor_name in matched["pairs"].items():
            surgery.borrow(tensors[name], self.donor, donor_name)
        for name in matched["counters"]:
            zeros = partial(torch.zeros, tuple(tensors[name].shape), dtype=tensors[name].dtype)
            surgery.derive(tensors[name], [], zeros)
        for note in matched["notes"]:
            surgery.note(note)
        if self.frozen:
            surgery.freeze(sites, below=False)
        if self.rest == "reinit":
            reinitialise(surgery, less(surgery, surgery.select("."), []), keep=set(names))
        return surgery.model

    def _chosen(self, surgery: Surgery) -> tuple[Sequence[Site], dict[str, str]]:
        """List the modules whose tensors are copied, and map each tensor's name to its name in the donor."""
        from surgeon.graph.sites import Site
        from surgeon.operations._shared.selection import as_list, run_up_to, with_exceptions

        if self.map is None:
            if self.up_to is not None:
                sites: Sequence[Site] = run_up_to(surgery, self.up_to)
            else:
                sites, _ = with_exceptions(surgery, as_list(self.sites))
            renamed = {site.name: site.name for site in sites}
        else:
            renamed = {}
            for selector, donor_site in self.map.items():
                top = surgery.site(selector)
                for path, _ in top.module.named_modules():
                    renamed[_joined(top.name, path)] = _joined(donor_site.strip("."), path)
            modules = dict(surgery.model.named_modules())
            sites = [Site(name, modules[name]) for name in renamed if name in modules]
        names = _tensors_at(surgery.model, renamed)
        if not names:
            raise OperationError("nothing to copy: the sites hold no tensors", hint="surgeon inspect shows the sites")
        return sites, names

    def _matched(self, surgery: Surgery, names: Mapping[str, str]) -> dict[str, Any]:
        """Match tensors of this network with the donor's, as JSON-able data.

        Raises:
            OperationError: The donor lacks tensors, or has them in other shapes.
        """
        from surgeon.graph.tensors import tensors_of

        donor = surgery.donor(self.donor)
        tensors = dict(tensors_of(surgery.model))
        pairs, counters, lacking, misfits = {}, [], [], []
        for name, donor_name in names.items():
            shape, expected = donor.shape(donor_name), tuple(tensors[name].shape)
            if shape is None and name.endswith(COUNTER):
                counters.append(name)
            elif shape is None:
                lacking.append(donor_name)
            elif shape != expected:
                misfits.append(f"{name} is {list(expected)} here and {list(shape)} there")
            else:
                pairs[name] = donor_name
        if lacking:
            raise self._lacks(donor, lacking, len(names))
        if misfits:
            more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
            raise OperationError(
                f"{misfits[0]}, in {self.donor}{more}",
                hint=f"exclude it (sites: …, !{misfits[0].split()[0].rpartition('.')[0]}), or put transfer before "
                "operations that change shapes, such as adapt_input and replace_head",
            )
        return {"pairs": pairs, "counters": counters, "notes": donor.notes}

    def _lacks(self, donor: Donor, lacking: Sequence[str], total: int) -> OperationError:
        near = suggest(lacking[0], donor.entries)
        return OperationError(
            f"{self.donor} lacks {len(lacking)} of {total} tensors: {', '.join(lacking[:3])}",
            hint=f"exclude them, or give their names in the donor with map: {{SITE: ITS SITE}}"
            f"{'     ' + near if near else ''}",
        )


def _joined(site: str, name: str) -> str:
    return f"{site}.{name}".strip(".")


def _tensors_at(model: nn.Module, renamed: Mapping[str, str]) -> dict[str, str]:
    """Map the tensors that the modules ``renamed`` hold directly, by their first names, to their names in the donor."""
    from surgeon.graph.tensors import aliases_of, tensors_of

    first = aliases_of(model)
    names: dict[str, str] = {}
    every = [*dict(tensors_of(model)), *first]
    for name in every:
        site, _, key = name.rpartition(".")
        if site in renamed:
            names.setdefault(first.get(name, name), _joined(renamed[site], key))
    return names
