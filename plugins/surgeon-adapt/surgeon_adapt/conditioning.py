"""Compute what CDAN and MDD do with features and predictions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


class Multilinear:
    """Combine features and predictions into one vector: their outer product, or a random projection of it.

    The projection is ``(R f) ⊙ (R' g) / √width`` with fixed normal R and R', whose inner products are in expectation
    those of the outer product (Long et al. 2018).

    Shapes: ``(batch, features)`` and ``(batch, classes)`` → ``(batch, width)``.

    Args:
        features: The width of the features.
        classes: The number of classes.
        width: The width of the projection; None for the outer product.
        seed: Draws R and R'.
    """

    def __init__(self, features: int, classes: int, width: int | None, seed: int) -> None:
        self.width = features * classes if width is None else width
        self.maps: tuple[Tensor, Tensor] | None = None
        if width is not None:
            draw = torch.Generator().manual_seed(seed)
            self.maps = (torch.randn(features, width, generator=draw), torch.randn(classes, width, generator=draw))

    def __call__(self, features: Tensor, predictions: Tensor) -> Tensor:
        """Combine the two."""
        if self.maps is None:
            return (features[:, :, None] * predictions[:, None]).flatten(1)
        of_features, of_predictions = (projection.to(features.device) for projection in self.maps)
        projected = (features @ of_features) * (predictions @ of_predictions)
        return projected / math.sqrt(self.width)


def certainty(predictions: Tensor) -> Tensor:
    """Weigh samples by ``1 + exp(-H)`` for the entropy H of their predictions (Long et al. 2018), ``(batch,)``."""
    entropy: Tensor = torch.special.entr(predictions).sum(1)
    return 1 + (-entropy).exp()


def domain_loss(scores: Tensor, domain: Tensor, weights: Tensor) -> Tensor:
    """Average the cross-entropy of the domains over domains, each the weighted mean over its samples."""
    values = F.cross_entropy(scores, domain, reduction="none")
    rows = [domain == number for number in torch.unique(domain).tolist()]
    return torch.stack([(values * weights)[row].sum() / weights[row].sum() for row in rows]).mean()


def margin_loss(scores: Tensor, predicted: Tensor, target: Tensor, margin: float) -> Tensor:
    """Compute how far a second classifier agrees on the source and disagrees on the target (Zhang et al. 2019).

    ``margin · mean over the source of -log σ(scores)[predicted]``
    ``+ mean over the target of -log(1 - σ(scores)[predicted])``, with σ the softmax.

    Args:
        scores: The second classifier's scores ``(batch, classes)``.
        predicted: The classes that the network predicts ``(batch,)``.
        target: Which samples are of the target domain ``(batch,)``.
        margin: γ, the exponential of the margin.
    """
    chosen = F.one_hot(predicted, scores.shape[1]).bool()
    agrees = F.cross_entropy(scores, predicted, reduction="none")
    differs = scores.logsumexp(1) - scores.masked_fill(chosen, -torch.inf).logsumexp(1)
    parts = [part.mean() for part in (margin * agrees[~target], differs[target]) if len(part)]
    return torch.stack(parts).sum()
