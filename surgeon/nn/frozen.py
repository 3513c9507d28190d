"""Keep normalisation layers as they were trained, also under torch's own tools.

A frozen norm is the same object with another class: its parameters, buffers, hooks and state-dict names stay. The
choice of the class decides how other code treats it.

**A frozen BatchNorm is not an** ``nn.BatchNorm2d``. It derives from their common base ``_NormBase``, so like
``torchvision.ops.FrozenBatchNorm2d`` it is not a BatchNorm to code that checks ``isinstance(module, _BatchNorm)``,
which looks for layers that follow the data. ``SyncBatchNorm.convert_sync_batchnorm`` would replace a subclass by a new,
trainable layer, and ``swa_utils.update_bn`` would reset its statistics; a subclass could prevent the second, but not
the first. Code that only reads attributes works (``fuse_conv_bn_eval``), and ``type:BatchNorm2d`` still selects the
layer. Code that looks up the class ignores it (``quantize_fx.fuse_fx``) or refuses it by name
(``torch.ao.quantization.fuse_modules``): call :func:`thaw_norm` first.

**Its** ``__module__`` **is that of the norm's class**, because torch.fx uses it: layers of ``torch.nn`` are leaves of a
trace, and their forward, which checks the number of dimensions, cannot be traced. So ``symbolic_trace`` and
torchvision's ``create_feature_extractor`` treat a frozen norm like any other.

**What undoes it.** The parameters stay parameters, so that names, optimizers and ``unfreeze`` find them:
``model.requires_grad_(True)`` makes the weight and bias of frozen norms trainable. Their statistics stay fixed until
:func:`thaw_norm`. ``reset_parameters()`` also resets the statistics.

A class derived from BatchNorm with a custom forward keeps its class, with :class:`Frozen` mixed in, because its forward
may compute anything. ``convert_sync_batchnorm`` replaces it, frozen or not.
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

    ``requires_grad=False`` alone does not stop updates of BatchNorm's running mean and variance.
    """

    @classmethod
    def mix(cls, base: type) -> type:
        """Make the frozen class of ``base``: a replacement for BatchNorm, a subclass otherwise."""
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
        """Stay in eval mode, whatever ``mode`` is."""
        super().train(False)  # type: ignore[misc]
        return self


class FrozenBatchNorm(Frozen, _NormBase):  # type: ignore[misc]  # train() returns the same object
    """Replace BatchNorm1d, 2d, 3d and SyncBatchNorm: normalise as in eval mode, bit-identical."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise ``(batch, channels, …)`` with the running statistics, or with the batch's if the norm has none."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        keeps_none = self.running_mean is None and self.running_var is None
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, keeps_none, momentum, self.eps
        )


def freeze_norm(norm: nn.Module) -> nn.Module:
    """Make ``norm`` keep its statistics through ``train()`` and torch's tools, in place; see this module.

    Its parameters are not changed: ``requires_grad`` decides whether they train.
    """
    if not isinstance(norm, Frozen):
        norm.__class__ = mixed(Frozen, type(norm))
    return norm.train(False)


def thaw_norm(norm: nn.Module) -> nn.Module:
    """Restore the class of ``norm`` that :func:`freeze_norm` replaced, in place; other modules are not changed.

    It stays in eval mode until the next ``train()``, and its parameters train only if ``requires_grad`` is set.
    """
    if isinstance(norm, Frozen):
        norm.__class__ = base_of(type(norm))
    return norm


def _is_batch_norm(base: type) -> bool:
    """Return whether ``base`` is one of torch's BatchNorms, or a subclass that only changes the constructor."""
    for cls in base.__mro__:
        if cls in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
            return True
        if not issubclass(cls, _BatchNorm) or any(not name.startswith("__") for name in vars(cls)):
            return False
    return False


def _keep_running_stats(self: nn.Module) -> None:
    """Do nothing in place of ``reset_running_stats``, which tools call before estimating the statistics again."""


def _reset_parameters(self: nn.Module) -> None:
    """Initialise parameters and statistics as the norm's class does."""
    frozen = type(self)
    self.__class__ = base_of(frozen)
    try:
        self.reset_parameters()  # type: ignore[operator]
    finally:
        self.__class__ = frozen
