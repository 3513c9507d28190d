"""Collect the features of several sites in one forward pass, pooled as a head would read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.selector import Selector
from surgeon.interfaces.splits import Splits
from surgeon.training.objectives import call_of
from surgeon.training.penalties import in_eval_mode

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

BATCH = 64


class Watched(nn.Module):
    """Pool the features of a site to one vector per sample.

    Shapes: ``(batch, …)`` → ``(batch, features)``.
    """

    def __init__(self, site: str, pool: nn.Module | None) -> None:
        super().__init__()
        self.site = site
        self.pool = pool
        self.takes_mask = bool(getattr(pool, "takes_mask", False))

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pool the features."""
        return (features if self.pool is None else self.pool(features, mask)).flatten(1).float()


class Watch(Operation):
    """Add the features of sites as outputs ``probe_0``, ``probe_1``, …, pooled as for a new head.

    The sites are the blocks and the input of the head, in order of execution, or ``sites``. In a network without blocks
    they are its children with weights.
    """

    sites: list[Selector] | None = None
    """The sites, instead of the blocks."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Add a branch at every site; see :class:`Operation`."""
        from surgeon.nn.pooling import Pool
        from surgeon.surgery.features import choose_pool, features_at

        for number, site in enumerate(self.names(surgery)):
            features = features_at(surgery, site)
            pool = choose_pool(features, "auto")
            pooling = None if pool == "none" else Pool(pool, features.axis, masked=features.masked)
            surgery.branch(f"probe_{number}", site, surgery.new(Watched, site, pooling))
        return surgery.model

    def names(self, surgery: Surgery) -> list[str]:
        """Return the sites."""
        if self.sites is not None:
            return list(dict.fromkeys(site.name for selector in self.sites for site in surgery.select(selector)))
        from surgeon.surgery.features import features_of_head

        names = list(surgery.role("blocks")) or _parts(surgery)
        try:
            last = features_of_head(surgery).site
        except OperationError:  # several heads, or none: use the last block
            last = ""
        # the input of the head may be the output of the last block
        if last and not any(block.startswith(f"{last}.") for block in names[:-1]) and last not in names:
            names.append(last)
        return names


def _parts(surgery: Surgery) -> list[str]:
    """Return the children with weights of a network without blocks; for a ``Sequential``, its children."""
    heads, names = surgery.role("head"), []
    remaining = [*surgery.model.named_children()]
    while remaining:
        name, module = remaining.pop(0)
        if type(module) is nn.Sequential:
            remaining = [(f"{name}.{child}", inner) for child, inner in module.named_children()] + remaining
        elif any(True for _ in module.parameters()) and not any(h == name or h.startswith(f"{name}.") for h in heads):
            names.append(name)
    return names


def watched(model: nn.Module) -> list[str]:
    """Return the sites that :class:`Watch` added outputs for, in the order of the outputs."""
    return [module.site for module in model.modules() if isinstance(module, Watched)]


def collect(
    model: nn.Module, splits: Splits, rows: Sequence[int], sites: int
) -> tuple[list[NDArray[np.float64]], Mapping[str, torch.Tensor]]:
    """Collect the features of each site for some training samples, and their columns that are not inputs.

    Args:
        model: A network after :class:`Watch`.
        splits: The data.
        rows: The indices of the training samples.
        sites: The number of sites.
    """
    call, device = call_of(model, splits.inputs), next(model.parameters()).device
    features: list[list[torch.Tensor]] = [[] for _ in range(sites)]
    columns_by_name: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), in_eval_mode(model):
        for start in range(0, len(rows), BATCH):
            batch = splits.collate([splits.train[row] for row in rows[start : start + BATCH]])
            outputs = call(model, {name: column.to(device) for name, column in batch.items()})
            for number in range(sites):
                features[number].append(outputs[f"probe_{number}"].cpu())
            for name, column in batch.items():
                if name not in splits.inputs:
                    columns_by_name.setdefault(name, []).append(column)
    arrays = [torch.cat(batches).double().numpy() for batches in features]
    return arrays, {name: torch.cat(columns) for name, columns in columns_by_name.items()}
