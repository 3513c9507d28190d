"""Normalise the samples of each domain by statistics of that domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from surgeon import Composite, OperationError


class DomainNorm(nn.Module):
    """Hold a BatchNorm for each domain (Chang et al. 2019).

    In training, each sample passes through the norm of its domain, in a batch of that domain alone, where surgeon's
    loop says which that is. Otherwise all samples pass through the norm of the domain :attr:`predict`. A domain with a
    single value for each channel in a batch, which has no variance, is normalised by its running statistics.

    Shapes: those of the BatchNorm.

    Args:
        norms: The norms.
        domains: The names of their domains.
        predict: The domain whose norm runs outside of training.
    """

    takes_domain: ClassVar[bool] = True

    def __init__(self, norms: Sequence[nn.Module], domains: Sequence[str], predict: str) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        self.domains = tuple(domains)
        self.predict = predict
        self.domain: Tensor | None = None

    def surgeon_composite(self) -> Composite:
        """Say that a forward may run one of the norms only."""
        return Composite(choices=tuple(f"norms.{number}" for number in range(len(self.norms))))

    def norm_of(self, domain: str) -> nn.Module:
        """Return the norm of a domain."""
        return self.norms[self.domains.index(domain)]

    def forward(self, features: Tensor) -> Tensor:
        """Normalise by domain in training, by the statistics of one domain otherwise."""
        if self.domain is None or not self.training:
            return cast("Tensor", self.norm_of(self.predict)(features))
        if len(features) != len(self.domain):
            raise OperationError(
                f"a norm gets {len(features)} rows for a batch of {len(self.domain)}, so that the domain of a row is "
                "unknown",
                hint="leave that norm out with at:",
            )
        rows = [(self.domain == number).nonzero().flatten() for number in range(len(self.norms))]
        parts = [
            self._normalised(cast("_BatchNorm", norm), features[some])
            for norm, some in zip(self.norms, rows, strict=True)
            if len(some)
        ]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _normalised(self, norm: _BatchNorm, part: Tensor) -> Tensor:
        if part.numel() > part.shape[1]:
            return cast("Tensor", norm(part))
        return F.batch_norm(part, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)

    def extra_repr(self) -> str:
        """Show the domains, and which is used outside of training."""
        return f"domains={', '.join(self.domains)}; predict={self.predict}"
