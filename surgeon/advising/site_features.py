"""The features of several sites at once, pooled as a head would read them."""

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
from surgeon.training.objectives import Call
from surgeon.training.penalties import in_eval_mode

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

BATCH = 64


class Watched(nn.Module):
    """What a site produces, one vector a sample.

    Shapes: ``(batch, …)`` → ``(batch, features)``.
    """

    def __init__(self, site: str, pool: nn.Module | None) -> None:
        super().__init__()
        self.site = site
        self.pool = pool
        self.takes_mask = bool(getattr(pool, "takes_mask", False))

    def forward(self, features: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The pooled features."""
        return (features if self.pool is None else self.pool(features, mask)).flatten(1).float()


class Watch(Operation):
    """Give the features of sites as further outputs ``probe_0``, ``probe_1``, …, as a new head would read them.

    The sites are the blocks and what the head reads, in the order in which they run; or those that are named. A
    network without blocks is looked at part by part.
    """

    sites: list[Selector] | None = None
    """What to watch instead of the blocks."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Branch off every site; see :class:`Operation`."""
        from surgeon.nn.pooling import Pool
        from surgeon.operations._shared.heads import choose_pool
        from surgeon.surgery.features import features_at

        for number, site in enumerate(self.names(surgery)):
            features = features_at(surgery, site)
            pool = choose_pool(features, "auto")
            made = None if pool == "none" else Pool(pool, features.axis, masked=features.masked)
            surgery.branch(f"probe_{number}", site, surgery.new(Watched, site, made))
        return surgery.model

    def names(self, surgery: Surgery) -> list[str]:
        """The addresses of the sites."""
        if self.sites is not None:
            return list(dict.fromkeys(site.name for each in self.sites for site in surgery.select(each)))
        from surgeon.surgery.features import features_of_head

        names = list(surgery.role("blocks")) or _parts(surgery)
        try:
            last = features_of_head(surgery).site
        except OperationError:  # several heads, or none: the last block will do
            last = ""
        # what the head reads may be the whole trunk, which ends as its last block does
        if last and not any(block.startswith(f"{last}.") for block in names[:-1]) and last not in names:
            names.append(last)
        return names


def _parts(surgery: Surgery) -> list[str]:
    """What a network without blocks is put together from: its children that have weights, and those of sequences."""
    heads, names = surgery.role("head"), []
    waiting = [*surgery.model.named_children()]
    while waiting:
        name, module = waiting.pop(0)
        if type(module) is nn.Sequential:
            waiting = [(f"{name}.{child}", inner) for child, inner in module.named_children()] + waiting
        elif any(True for _ in module.parameters()) and not any(h == name or h.startswith(f"{name}.") for h in heads):
            names.append(name)
    return names


def watched(model: nn.Module) -> list[str]:
    """The addresses of the sites that :class:`Watch` watches, in the order of its outputs."""
    return [module.site for module in model.modules() if isinstance(module, Watched)]


def collect(
    model: nn.Module, splits: Splits, rows: Sequence[int], sites: int
) -> tuple[list[NDArray[np.float64]], Mapping[str, torch.Tensor]]:
    """The features of each site for some training samples, and the columns of these samples that are no inputs.

    Args:
        model: A network that has been through :class:`Watch`.
        splits: The data.
        rows: Which of the training samples.
        sites: How many sites are watched.
    """
    call, device = Call.of(model, splits.inputs), next(model.parameters()).device
    features: list[list[torch.Tensor]] = [[] for _ in range(sites)]
    rest: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), in_eval_mode(model):
        for start in range(0, len(rows), BATCH):
            batch = splits.collate([splits.train[row] for row in rows[start : start + BATCH]])
            outputs = call(model, {name: column.to(device) for name, column in batch.items()})
            for number in range(sites):
                features[number].append(outputs[f"probe_{number}"].cpu())
            for name, column in batch.items():
                if name not in splits.inputs:
                    rest.setdefault(name, []).append(column)
    found = [torch.cat(some).double().numpy() for some in features]
    return found, {name: torch.cat(columns) for name, columns in rest.items()}
