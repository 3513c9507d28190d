"""transfer: copy chosen layers from another trained network into this one."""

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
"""BatchNorm's counter, which old files lack and no forward needs."""


class Transfer(Operation):
    """Copy chosen layers, parameters and statistics, from a donor into this network; frozen, or to be fine-tuned.

    Layer transfer (Yosinski et al. 2014): the first k layers come from a network trained on another
    task (``up_to``), the others stay as they are or are drawn afresh (``rest: reinit``). The donor may be anything
    that surgeon opens; only the tensors that are copied are read from it, and the manifest keeps its fingerprint.

    Shapes: a copied tensor has the same shape in both networks.

    Say what to copy in exactly one way: ``sites``, ``up_to`` or ``map``.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"donor": "other.safetensors", "up_to": "layer2"}]})

    donor: Annotated[Name, BesideRecipe()]
    """The network to copy from: a file, a folder, torchvision/NAME@WEIGHTS, hf:ORG/NAME, an artifact. A file is
    looked for beside the recipe first."""
    sites: Selector | Annotated[list[Selector], Field(min_length=1)] | None = None
    """What to copy, with everything below it, from the sites of the same names in the donor; ``!…`` leaves out."""
    up_to: Selector | None = None
    """Copy all that runs up to and including this site, in executed order."""
    map: dict[Name, str] | None = Field(default=None, min_length=1)
    """Sites of this network, and what they are called in the donor; ``.`` is the donor as a whole."""
    frozen: bool = False
    """Whether what is copied stays as it is: neither parameters nor norms' statistics follow training."""
    rest: Literal["keep", "reinit"] = "keep"
    """What becomes of everything else: it keeps its values, or is drawn afresh as reinit does."""

    @model_validator(mode="after")
    def _one_way(self) -> Transfer:
        given = [name for name in ("sites", "up_to", "map") if getattr(self, name) is not None]
        if len(given) != 1:
            says = f"not {' and '.join(given)}" if given else "and none is given"
            raise ValueError(f"exactly one of sites, up_to and map says what to copy, {says}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Borrow the tensors; see :class:`Operation`."""
        import torch

        from surgeon.graph.tensors import tensors_of
        from surgeon.operations._shared.selection import less
        from surgeon.operations.reinit import reinitialise

        sites, names = self._chosen(surgery)
        found = surgery.recall("donor", lambda: self._matched(surgery, names), subject=self.donor, outside=True)
        tensors = dict(tensors_of(surgery.model))
        for name, theirs in found["pairs"].items():
            surgery.borrow(tensors[name], self.donor, theirs)
        for name in found["counters"]:
            zeros = partial(torch.zeros, tuple(tensors[name].shape), dtype=tensors[name].dtype)
            surgery.derive(tensors[name], [], zeros)
        for note in found["notes"]:
            surgery.note(note)
        if self.frozen:
            surgery.freeze(sites, below=False)
        if self.rest == "reinit":
            reinitialise(surgery, less(surgery, surgery.select("."), []), keep=set(names))
        return surgery.model

    def _chosen(self, surgery: Surgery) -> tuple[Sequence[Site], dict[str, str]]:
        """The modules whose own tensors are copied, and each tensor's name here with the donor's."""
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
            for selector, theirs in self.map.items():
                top = surgery.site(selector)
                for path, _ in top.module.named_modules():
                    renamed[_joined(top.name, path)] = _joined(theirs.strip("."), path)
            modules = dict(surgery.model.named_modules())
            sites = [Site(name, modules[name]) for name in renamed if name in modules]
        names = _tensors_at(surgery.model, renamed)
        if not names:
            raise OperationError(
                "there is nothing to copy: the sites hold no tensors", hint="surgeon inspect shows the sites"
            )
        return sites, names

    def _matched(self, surgery: Surgery, names: Mapping[str, str]) -> dict[str, Any]:
        """The donor's tensors for ours, or every reason why there are none; JSON-able."""
        from surgeon.graph.tensors import tensors_of

        donor = surgery.donor(self.donor)
        tensors = dict(tensors_of(surgery.model))
        pairs, counters, lacking, misfits = {}, [], [], []
        for name, theirs in names.items():
            shape, own = donor.shape(theirs), tuple(tensors[name].shape)
            if shape is None and name.endswith(COUNTER):
                counters.append(name)
            elif shape is None:
                lacking.append(theirs)
            elif shape != own:
                misfits.append(f"{name} is {list(own)} here and {list(shape)} there")
            else:
                pairs[name] = theirs
        if lacking:
            raise self._lacks(donor, lacking, len(names))
        if misfits:
            more = f" (and {len(misfits) - 1} more)" if len(misfits) > 1 else ""
            raise OperationError(
                f"{misfits[0]}, in {self.donor}{more}",
                hint=f"leave it out (sites: …, !{misfits[0].split()[0].rpartition('.')[0]}), or let both have the "
                "same shapes before: transfer comes before adapt_input and replace_head",
            )
        return {"pairs": pairs, "counters": counters, "notes": donor.notes}

    def _lacks(self, donor: Donor, lacking: Sequence[str], wanted: int) -> OperationError:
        near = suggest(lacking[0], donor.entries)
        return OperationError(
            f"{self.donor} lacks {len(lacking)} of {wanted} tensors: {', '.join(lacking[:3])}",
            hint=f"leave them out, or say what they are called there with map: {{SITE: ITS SITE}}"
            f"{'     ' + near if near else ''}",
        )


def _joined(site: str, name: str) -> str:
    return f"{site}.{name}".strip(".")


def _tensors_at(model: nn.Module, renamed: Mapping[str, str]) -> dict[str, str]:
    """The tensors that the modules ``renamed`` hold themselves, each by its first name, with what they are called
    elsewhere."""
    from surgeon.graph.tensors import aliases_of, tensors_of

    first = aliases_of(model)
    names: dict[str, str] = {}
    every = [*dict(tensors_of(model)), *first]
    for name in every:
        site, _, key = name.rpartition(".")
        if site in renamed:
            names.setdefault(first.get(name, name), _joined(renamed[site], key))
    return names
