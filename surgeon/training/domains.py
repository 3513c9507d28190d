"""Normalise batches by domain: samples of one domain are not normalised with statistics of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from surgeon.errors import TrainingError
from surgeon.nn.frozen import FrozenBatchNorm


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
