"""conserve: keep a network near its trained state while it is fine-tuned."""

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
"""Defaults of ``weight``: the middle of the papers' search ranges; for features, where both losses are about equal."""
LAST_BLOCK = "@blocks[-1]"


class Conserve(Operation):
    """Add a penalty that keeps the network near its trained state while it learns a new task.

    ``l2_sp`` decays the parameters that came from the source towards their values at the start of training and
    the new ones towards 0 (Li, Grandvalet & Davoine 2018, eq. 2). ``ewc`` weights every parameter by how much the
    old output depends on it: its Fisher information on data of the source (Kirkpatrick et al. 2017, eq. 3).
    ``lwf`` keeps the old output unchanged on the new data, by distillation from the network at the start of training
    (Li & Hoiem 2016, eq. 2 and 3). ``features`` keeps the features of sites on the new data near those at the start
    (hints: Romero et al. 2015, eq. 3; to conserve: Li et al. 2019, DELTA). The structure of the network does not
    change. The reference values are those at the start of training; they are kept in memory during training and are
    not in the artifact.

    ewc and lwf conserve an output, so keep the old head next to the new one (multitask with original: keep). That
    output is trained with labels only if an objective in the recipe names it. Norm layers in train mode still update
    their statistics: freeze them if that harms.
    """

    method: Literal["l2_sp", "ewc", "lwf", "features"]
    """The penalty."""
    weight: PositiveFloat | None = None
    """Its factor. Default: α = 0.1 for l2_sp, λ = 1000 for ewc, 1 for lwf and features."""
    new_weight: float | None = Field(default=None, ge=0)
    """l2_sp: β, the weight decay of new parameters. Default: 0.01."""
    sites: Selector | list[Selector] | None = None
    """l2_sp and ewc: the modules to conserve, with their submodules. Default: all trainable ones. features: the sites
    whose features to conserve. Default: the last block."""
    output: str | None = Field(default=None, min_length=1)
    """ewc and lwf: the old output. Default: logits."""
    temperature: PositiveFloat | None = None
    """lwf: the temperature that softens both distributions. Default: 2."""
    data: AnySource | None = None
    """ewc: data of the source, to compute the Fisher information on; its labels are not used."""
    samples: PositiveInt | None = None
    """ewc: the number of its training samples to use. Default: 256."""

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
                raise ValueError(f"{name} is not a setting of {self.method}")
        if self.method == "ewc" and self.data is None:
            raise ValueError("ewc needs data of the source, as in: data: {source: digits, classes: [0, 1, 2, 3, 4]}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Check that the sites exist; nothing is edited."""
        from surgeon.operations._shared.selection import as_list

        if self.sites is not None or self.method == "features":
            surgery.select(as_list(self.sites) or [LAST_BLOCK])
        surgery.note(f"training holds the network to what it is at the start ({self.method})")
        return surgery.model

    def penalties(self) -> list[Penalty]:
        """Make the penalty of the method."""
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
