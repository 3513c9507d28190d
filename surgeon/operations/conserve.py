"""conserve: hold a network to what it was while it is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from surgeon.data.sources import AnySource
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.training import Penalty

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery

WEIGHTS = {"l2_sp": 0.1, "ewc": 1000.0, "lwf": 1.0, "features": 1.0}
"""What ``weight`` is if left out: the middle of what the papers searched; for features, where both losses are alike."""
LAST_BLOCK = "@blocks[-1]"


class Conserve(Operation):
    """Hold the network to what it knows while it learns something new: conservation training.

    ``l2_sp`` decays the parameters that came from the source towards their values at the start of training and
    the new ones towards 0 (Li, Grandvalet & Davoine 2018, eq. 2). ``ewc`` weighs every parameter by how much the
    old output depends on it, its Fisher information on data of the source (Kirkpatrick et al. 2017, eq. 3).
    ``lwf`` keeps the old output what it was on the new data, by distillation from the network that training
    starts from (Li & Hoiem 2016, eq. 2 and 3). ``features`` keeps what sites produce on the new data near to what
    they produced at the start (hints: Romero et al. 2015, eq. 3; to conserve: Li et al. 2019, DELTA). The
    structure stays as it is. The values to hold to are those at the start of training, kept in memory while it
    lasts; nothing of them is in the artifact.

    ewc and lwf conserve an output, so the old head must stand beside the new one (multitask with original: keep);
    that output is then trained by labels only where an objective of the recipe's own says so. Norms that follow
    the data change too: freeze them where that harms.
    """

    method: Literal["l2_sp", "ewc", "lwf", "features"]
    """Which penalty."""
    weight: PositiveFloat | None = None
    """Its factor: α for l2_sp (0.1 if left out), λ for ewc (1000) and for lwf (1), of features too (1)."""
    new_weight: float | None = Field(default=None, ge=0)
    """l2_sp: β, the weight decay of what is new; 0.01 if left out."""
    sites: Selector | list[Selector] | None = None
    """l2_sp and ewc: what to hold, with everything below it; all that trains if left out. features: the sites whose
    features are held; the last block if left out."""
    output: str | None = Field(default=None, min_length=1)
    """ewc and lwf: the old output; logits if left out."""
    temperature: PositiveFloat | None = None
    """lwf: what softens both distributions; 2 if left out."""
    data: AnySource | None = None
    """ewc: data of the source, to measure the Fisher information on; its labels are not used."""
    samples: PositiveInt | None = None
    """ewc: how many of its training samples to measure on; 256 if left out."""

    @model_validator(mode="after")
    def _belongs(self) -> Conserve:
        allowed = {
            "l2_sp": {"new_weight", "sites"},
            "ewc": {"sites", "output", "data", "samples"},
            "lwf": {"output", "temperature"},
            "features": {"sites"},
        }[self.method]
        for name in ("new_weight", "sites", "output", "temperature", "data", "samples"):
            if getattr(self, name) is not None and name not in allowed:
                raise ValueError(f"{name} is no setting of {self.method}")
        if self.method == "ewc" and self.data is None:
            raise ValueError("ewc needs data of the source, as in: data: {source: digits, classes: [0, 1, 2, 3, 4]}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites are there; nothing is edited."""
        from surgeon.operations._shared.selection import as_list

        if self.sites is not None or self.method == "features":
            surgery.select(as_list(self.sites) or [LAST_BLOCK])
        surgery.note(f"training holds the network to what it is at the start ({self.method})")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """The method's term."""
        from surgeon.operations._shared.selection import as_list
        from surgeon.training.conservation import EWC, L2SP, FeatureMatching, LwF

        weight = WEIGHTS[self.method] if self.weight is None else self.weight
        sites = as_list(self.sites) or None
        if self.method == "l2_sp":
            return [L2SP(weight=weight, new_weight=0.01 if self.new_weight is None else self.new_weight, sites=sites)]
        if self.method == "features":
            return [FeatureMatching(weight=weight, sites=sites or [LAST_BLOCK])]
        if self.method == "lwf":
            return [LwF(weight=weight, output=self.output or "logits", temperature=self.temperature or 2.0)]
        assert self.data is not None  # validated
        return [
            EWC(
                weight=weight,
                output=self.output or "logits",
                data=self.data,
                samples=self.samples or 256,
                sites=sites,
            )
        ]
