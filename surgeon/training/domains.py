"""Treat the domains of a batch separately: norms by domain, and modules that ask for the domain of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from surgeon.errors import TrainingError, suggest
from surgeon.nn.frozen import FrozenBatchNorm


class DomainFeed:
    """Give modules of the network the domain of each sample of a training batch.

    A module whose class has ``takes_domain = True`` has its ``domains`` by name, and an attribute ``domain``: in
    training a tensor ``(batch,)`` of numbers into ``domains``, set before each forward, otherwise None.

    Args:
        model: The network.
        names: The names of the domains in the data, by number.

    Raises:
        TrainingError: On creation: the data have no domains, or one that a module does not have.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        self.tables: list[tuple[Any, Tensor]] = []
        for path, module in model.named_modules():
            if not getattr(type(module), "takes_domain", False):
                continue
            domains: list[str] = list(module.domains)
            where = f"{path or 'the network'} distinguishes the domains {', '.join(domains)}"
            if not names:
                raise TrainingError(
                    f"{where}, and the data have none",
                    where="train.data",
                    hint=f"give every source its domain: data: [{{…, domain: {domains[0]}}}, …]",
                )
            if unknown := [name for name in names if name not in domains]:
                raise TrainingError(
                    f"{where}, and the data have {unknown[0]!r}",
                    where="train.data",
                    hint=suggest(unknown[0], domains),
                )
            self.tables.append((module, torch.tensor([domains.index(name) for name in names])))

    def tell(self, domain: Tensor | None) -> None:
        """Set the domain of each sample of the next forward; None outside of training."""
        for module, table in self.tables:
            module.domain = None if domain is None else table.to(domain.device)[domain]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Leave no domain behind in the modules."""
        try:
            yield
        finally:
            self.tell(None)


class SeparateNorms:
    """Apply BatchNorm to each domain of a training batch separately.

    Otherwise the domain classifier of a domain-adversarial network could separate domains by the mixed statistics of
    the batch, and the network would be tested under other conditions than in training. If a domain has a single value
    per channel, which has no variance, the running statistics are used.

    Args:
        model: The network.
        keep: The number of the domain that the running statistics follow; None for all, one after the other.

    Raises:
        TrainingError: On creation: the network has no BatchNorm.
    """

    def __init__(self, model: nn.Module, keep: int | None = None) -> None:
        self.domain: Tensor | None = None
        self.keep = keep
        self.norms = {
            name: norm for name, norm in model.named_modules() if isinstance(norm, (_BatchNorm, FrozenBatchNorm))
        }
        if not self.norms:
            raise TrainingError(
                f"{type(model).__name__} has no BatchNorm to separate domains in", where="train.domain_bn"
            )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Separate domains in the forward of every BatchNorm for the context."""
        for name, norm in self.norms.items():
            norm.forward = partial(self._forward, name, norm, norm.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.domain = None
            for norm in self.norms.values():
                del norm.forward

    def _forward(self, name: str, norm: _NormBase, forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        if not norm.training or self.domain is None:
            return forward(features)
        if len(features) != len(self.domain):
            raise TrainingError(
                f"{name} normalises {len(features)} rows for a batch of {len(self.domain)}, so the domain of a row is "
                "unknown",
                where="train.domain_bn",
                hint="freeze that norm, or use domain_bn: mixed",
            )
        rows = {domain: (self.domain == domain).nonzero().flatten() for domain in torch.unique(self.domain).tolist()}
        parts = [self._one(norm, forward, features[some], domain) for domain, some in rows.items()]
        return torch.cat(parts)[torch.cat([*rows.values()]).argsort()]

    def _one(self, norm: _NormBase, forward: Callable[[Tensor], Tensor], part: Tensor, domain: int) -> Tensor:
        if part.numel() > part.shape[1] or norm.running_mean is None:
            tracked = norm.track_running_stats
            norm.track_running_stats = tracked and self.keep in (None, domain)
            try:
                return forward(part)
            finally:
                norm.track_running_stats = tracked
        return F.batch_norm(part, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
