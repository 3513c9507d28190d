"""Read the features of a site in every forward, as one vector for each sample."""

from __future__ import annotations

from torch import Tensor

from surgeon.errors import TrainingError
from surgeon.nn.grafts import Tap
from surgeon.nn.pooling import Pool
from surgeon.surgery.features import Features, choose_pool
from surgeon.training.calls import Batch


class PooledFeatures:
    """Read what a tap saw in the last forward, pooled as new heads pool it.

    The class token stands for tokens that begin with one. Other tokens, and the positions of a map, are averaged,
    without padding.

    Args:
        tap: Reads the site in every forward.
        features: Describes what the site produces.
    """

    def __init__(self, tap: Tap, features: Features) -> None:
        kind = choose_pool(features, "auto")
        self.site = features.site
        self.width = features.width
        self._tap = tap
        self._pool = None if kind == "none" else Pool(kind, features.axis, masked=features.masked)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the features of the forward that has just run, ``(batch, width)``; they can be read once.

        Raises:
            TrainingError: The site did not run, or no gradient reaches it.
        """
        value, self._tap.value = self._tap.value, None
        if not isinstance(value, Tensor):
            raise TrainingError(f"{self.site or 'the network'} produces no tensor, or does not run in training")
        if not value.requires_grad:
            raise TrainingError(
                f"no gradient reaches the features of {self.site or 'the network'}: all layers before it are frozen",
                hint="name a later site, or freeze less",
            )
        return value if self._pool is None else self._pool(value, batch.get("attention_mask"))
