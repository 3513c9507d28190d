"""Freeze part of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from surgeon.graph.sites import Site
    from surgeon.surgery.context import Surgery


class Freeze(Operation):
    """Freeze part of the network: its parameters, and the statistics of its norm layers.

    Frozen parameters get ``requires_grad=False`` and are not given to the optimizer. BatchNorm would still update its
    running mean and variance, so frozen norm layers also stay in eval mode, through ``.train()``, deepcopy, saving,
    ``torch.compile``, ``update_bn`` and ``convert_sync_batchnorm``; with ``norms: train`` they keep updating.
    ``model.requires_grad_(True)`` makes all parameters trainable again, also those of frozen norm layers, but their
    statistics stay frozen.

    Give exactly one of ``sites``, ``up_to`` and ``all_but``.
    """

    sites: Selector | list[Selector] | None = None
    """The modules to freeze, with their submodules; ``!…`` excludes."""
    up_to: Selector | None = None
    """Freeze everything that runs up to and including this site, in executed order."""
    all_but: Selector | list[Selector] | None = None
    """Freeze everything except this; ``head`` means the role @head and the heads that surgery added."""
    norms: Literal["eval", "train"] = Field(default="eval")
    """Whether frozen norm layers keep their statistics (eval) or update them (train)."""

    @model_validator(mode="after")
    def _one_way(self) -> Freeze:
        options = [name for name in ("sites", "up_to", "all_but") if getattr(self, name) is not None]
        if len(options) != 1:
            says = f"not {' and '.join(options)}" if options else "and none is given"
            raise ValueError(f"exactly one of sites, up_to and all_but says what to freeze, {says}")
        return self

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Freeze the sites; see :class:`Operation`."""
        from surgeon.operations._shared.selection import as_list, run_up_to, with_exceptions

        spared: list[Site] = []
        if self.up_to is not None:
            sites = run_up_to(surgery, self.up_to)
        elif self.sites is not None:
            sites, spared = with_exceptions(surgery, as_list(self.sites))
        else:
            sites, spared = _outside(surgery, as_list(self.all_but))
        surgery.freeze(sites, norms=self.norms, below=False, spare=spared)
        if not any(parameter.requires_grad for parameter in surgery.model.parameters()):
            raise OperationError(
                "would freeze everything, and leave nothing to train",
                hint="exclude something, for example with all_but: head",
            )
        return surgery.model


def _outside(surgery: Surgery, selectors: Sequence[str]) -> tuple[list[Site], list[Site]]:
    from surgeon.graph.sites import select_with_heads
    from surgeon.operations._shared.selection import less

    spared = [site for selector in selectors for site in select_with_heads(surgery, surgery.model, selector)]
    return less(surgery, surgery.select("."), spared), spared
