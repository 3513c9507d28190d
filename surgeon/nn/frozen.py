"""Normalisation layers that stay as they were trained."""

from __future__ import annotations

from torch import nn

from surgeon.nn.mixing import Mixin, mixed


class Frozen(Mixin):
    """Mixed into a norm layer that must not follow the data: ``train()`` leaves it in eval mode.

    ``requires_grad=False`` alone leaves BatchNorm's running mean and variance drifting.
    """

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode, whatever is asked for."""
        super().train(False)  # type: ignore[misc]
        return self


def freeze_norm(norm: nn.Module) -> nn.Module:
    """Make ``norm`` keep its statistics through ``train()``, in place."""
    if not isinstance(norm, Frozen):
        norm.__class__ = mixed(Frozen, type(norm))
    return norm.train(False)
