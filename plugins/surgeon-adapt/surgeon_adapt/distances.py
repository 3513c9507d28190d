"""Compute distances between the features of two domains, with a gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor


def squared_mmd(one: Tensor, other: Tensor, widths: Sequence[float]) -> Tensor:
    """Estimate the squared maximum mean discrepancy of two samples with a mean of Gaussian kernels.

    ``E k(x, x') + E k(y, y') - 2 E k(x, y)`` with each expectation as the mean over all pairs, those of a point with
    itself included: the biased estimate of Gretton et al. 2012, which is never negative. The kernel is the mean of
    ``exp(-‖x - y‖² / (width · m))``, where m is the median squared distance of different points of both samples (Long
    et al. 2015); no gradient flows through m.

    Args:
        one: ``(n, features)``.
        other: ``(m, features)``.
        widths: The bandwidths of the kernels, as factors of m.
    """
    points = torch.cat([one, other]).float()
    points = points - points.mean(0).detach()  # distances stay, and rounding errors shrink
    squares = points.square().sum(1)
    distances = (squares[:, None] + squares - 2 * points @ points.T).clamp(min=0)
    apart = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    median = distances.detach()[apart].median().clamp(min=1e-12)
    kernel = torch.stack([(-distances / (width * median)).exp() for width in widths]).mean(0)
    n = len(one)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def coral(one: Tensor, other: Tensor) -> Tensor:
    """Compute the distance of two covariances, ``‖C - C'‖² / (4 d²)`` (Sun & Saenko 2016, eq. 1).

    Args:
        one: ``(n, d)``, at least two points.
        other: ``(m, d)``, at least two points.
    """
    difference = torch.cov(one.float().T) - torch.cov(other.float().T)
    return difference.square().sum() / (4 * one.shape[1] ** 2)


def mean_over_pairs(features: Tensor, domain: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Average ``distance`` over all pairs of domains with at least two samples; without a pair, it is 0.

    Args:
        features: ``(batch, features)``.
        domain: The number of each sample's domain, ``(batch,)``.
        distance: Takes the features of two domains.
    """
    parts = [features[domain == number] for number in torch.unique(domain).tolist()]
    pairs = list(combinations([part for part in parts if len(part) > 1], 2))
    if not pairs:
        return features.sum() * 0  # a batch of one domain has a gradient too
    return torch.stack([distance(one, other) for one, other in pairs]).mean()
