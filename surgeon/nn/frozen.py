"""Normalisation layers that stay as they were trained, also under torch's own tools.

A frozen norm is the same object with another class: its parameters, buffers and hooks, and every name in the state
dict stay. Which class that is decides what the rest of the world does with it.

**A frozen BatchNorm is not an** ``nn.BatchNorm2d``. It derives from their common base ``_NormBase``, as little related
to BatchNorm as ``torchvision.ops.FrozenBatchNorm2d`` is, and for the same reason: whatever asks
``isinstance(module, _BatchNorm)`` wants a layer that follows the data. ``SyncBatchNorm.convert_sync_batchnorm`` would
put a new layer in its place, which trains; ``swa_utils.update_bn`` would reset its statistics. A subclass could defend
itself against the second, not against the first. What reads attributes only works as before (``fuse_conv_bn_eval``),
and ``type:BatchNorm2d`` still selects it. What looks the class up leaves it alone (``quantize_fx.fuse_fx``) or refuses
it by name (``torch.ao.quantization.fuse_modules``): :func:`thaw_norm` makes it what it was.

**Its** ``__module__`` **is that of the norm's own class**, because torch.fx goes by that: the layers of ``torch.nn``
are leaves of a trace, and their forward, which looks at the number of dimensions, cannot be traced. So
``symbolic_trace`` and torchvision's ``create_feature_extractor`` name and keep a frozen norm as they do any other.

**What undoes it.** The parameters stay parameters, so that names, optimizers and ``unfreeze`` find them:
``model.requires_grad_(True)`` lets the weight and bias of frozen norms train again, as those of all else. Their
statistics do not follow the data even then; that takes :func:`thaw_norm`. ``reset_parameters()``, which asks for a
layer without training, resets the statistics too.

A class derived from BatchNorm that has a forward of its own keeps that class, with :class:`Frozen` mixed in: nothing
else knows what it computes. ``convert_sync_batchnorm`` replaces it, forward and all, frozen or not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from surgeon.nn.mixing import Mixin, base_of, mixed


class Frozen(Mixin):
    """Mixed into a norm layer that must not follow the data: ``train()`` leaves it in eval mode.

    ``requires_grad=False`` alone leaves BatchNorm's running mean and variance drifting.
    """

    @classmethod
    def mix(cls, base: type) -> type:
        """Make the frozen class of ``base``: of BatchNorm a stand-in, of all else a subclass."""
        contents: dict[str, Any] = {"__module__": base.__module__}
        if hasattr(base, "reset_running_stats"):
            contents["reset_running_stats"] = _keep_running_stats
        if hasattr(base, "reset_parameters"):
            contents["reset_parameters"] = _reset_parameters
        if _is_batch_norm(base):
            contents["_check_input_dim"] = base._check_input_dim  # type: ignore[attr-defined]
            return type(f"{cls.__name__}{base.__name__}", (FrozenBatchNorm,), contents)
        return type(f"{cls.__name__}{base.__name__}", (cls, base), contents)

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode, whichever mode is asked for."""
        super().train(False)  # type: ignore[misc]
        return self


class FrozenBatchNorm(Frozen, _NormBase):  # type: ignore[misc]  # train() returns the same object
    """Stands in for BatchNorm1d, 2d, 3d and SyncBatchNorm: normalises as they do in eval mode, to the bit."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(batch, channels, …)`` by the running statistics; by the batch's where the norm keeps none."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        keeps_none = self.running_mean is None and self.running_var is None
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, keeps_none, momentum, self.eps
        )


def freeze_norm(norm: nn.Module) -> nn.Module:
    """Make ``norm`` keep its statistics through ``train()`` and torch's tools, in place; see this module.

    Its parameters are left as they are: whether they train is up to ``requires_grad``.
    """
    if not isinstance(norm, Frozen):
        norm.__class__ = mixed(Frozen, type(norm))
    return norm.train(False)


def thaw_norm(norm: nn.Module) -> nn.Module:
    """Give ``norm`` back the class that :func:`freeze_norm` took, in place; others are left as they are.

    It is in eval mode until the next ``train()``, and its parameters train only once ``requires_grad`` says so.
    """
    if isinstance(norm, Frozen):
        norm.__class__ = base_of(type(norm))
    return norm


def _is_batch_norm(base: type) -> bool:
    """Whether ``base`` is one of torch's BatchNorms, or a subclass with nothing but a constructor of its own."""
    for cls in base.__mro__:
        if cls in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
            return True
        if not issubclass(cls, _BatchNorm) or any(not name.startswith("__") for name in vars(cls)):
            return False
    return False


def _keep_running_stats(self: nn.Module) -> None:
    """Do nothing, in the place of ``reset_running_stats``: tools call that in order to estimate them again."""


def _reset_parameters(self: nn.Module) -> None:
    """Initialise parameters and statistics as the norm's own class does."""
    frozen = type(self)
    self.__class__ = base_of(frozen)
    try:
        self.reset_parameters()  # type: ignore[operator]
    finally:
        self.__class__ = frozen
