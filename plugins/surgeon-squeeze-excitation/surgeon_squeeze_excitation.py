"""A whole surgeon plugin: one operation, registered by one hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from surgeon import Operation, OperationError, Selector, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


class SqueezeExcitation(Operation):
    """Let a network weigh its channels by what it sees: squeeze-and-excitation behind each site.

    Source: Hu, Shen & Sun 2018, "Squeeze-and-Excitation Networks", equations 2 to 4.
    Shapes: ``(batch, channels, height, width)`` → the same.

    The gates start (nearly) open, so that the network computes what it did before and learns from there.
    """

    at: Selector = Field("@blocks", description="The sites behind which it is inserted.")
    reduction: PositiveInt = Field(16, description="How many times narrower the bottleneck is.")
    opening: float = Field(6.0, description="The gates' first bias: sigmoid(6) lets 99.8 % of a channel through.")

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Insert a gate behind each site."""
        import torch
        from torchvision.ops import SqueezeExcitation as Gate

        opening = self.opening
        for site in surgery.select(self.at):
            shape = surgery.shape(site)
            if len(shape) != 4:
                raise OperationError(
                    f"{site} produces {shape}, not (batch, channels, height, width)", hint="name other sites with at:"
                )
            channels = shape[1]
            gate = surgery.new(Gate, channels, max(1, channels // self.reduction), like=site)
            surgery.derive(gate.fc2.weight, [gate.fc2.weight], lambda weight: weight * 0.01)
            surgery.derive(gate.fc2.bias, [gate.fc2.bias], lambda bias: torch.full_like(bias, opening))
            surgery.insert(site, gate, name="squeeze_excitation")
        return surgery.model


@hookimpl
def surgeon_operations() -> list[type[Operation]]:
    """What this plugin adds to surgeon."""
    return [SqueezeExcitation]
