"""convert: give a network's weights another floating-point dtype."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from surgeon.errors import OperationError
from surgeon.interfaces.operation import Operation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from surgeon.surgery.context import Surgery


class Convert(Operation):
    """Convert the floating-point parameters and buffers of the network to one dtype.

    Weights of 16 or 64 bits run and train as they are. But data are float32, and small updates are lost in 16 bits, so
    convert to float32 before fine-tuning. Conversion to a smaller dtype rounds every value, and is refused if one would
    become infinite. Whole numbers, and buffers outside the state dict, stay.
    """

    dtype: Literal["float32", "float16", "bfloat16", "float64"]
    """The dtype."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Convert the tensors; see :class:`Operation`."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        converted = surgery.convert(dtype, partial(_converted, dtype=dtype))
        old = ", ".join(sorted({str(kind).removeprefix("torch.") for kind in converted.values()}))
        summary = (
            f"{len(converted)} tensors from {old} to {self.dtype}" if converted else f"all are {self.dtype} already"
        )
        surgery.note(f"converts {summary}" if converted else summary)
        with surgery.bookkeeping():
            for config in _configs(surgery.model):
                config.dtype = dtype
        return surgery.model


def _converted(values: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    """Round values to ``dtype``.

    Raises:
        OperationError: A finite value is too large for it.
    """
    result = values.to(dtype)
    if bool((result.isfinite() != values.isfinite()).any()):
        kind = str(dtype).removeprefix("torch.")
        raise OperationError(
            f"a value of {values.abs().max():g} is too large for {kind}",
            hint="convert to bfloat16 or float32",
        )
    return result


def _configs(model: nn.Module) -> list[Any]:
    """Return the configs of a transformers network, those of its parts too, that say a dtype."""
    configs: dict[int, Any] = {}

    def add(config: Any) -> None:
        if id(config) in configs or not hasattr(config, "to_dict"):
            return
        configs[id(config)] = config
        for value in list(vars(config).values()):
            add(value)

    for module in model.modules():
        add(getattr(module, "config", None))
    return [config for config in configs.values() if getattr(config, "dtype", None) is not None]
