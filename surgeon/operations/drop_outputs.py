"""drop_outputs: remove branches, such as a domain classifier when training is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from surgeon.interfaces.operation import Operation
from surgeon.operations._shared.head_options import no_repeats, output_name

if TYPE_CHECKING:
    from torch import nn

    from surgeon.surgery.context import Surgery


def _once(names: list[str]) -> list[str]:
    no_repeats(names, "outputs")
    return names


OutputName = Annotated[str, AfterValidator(output_name), Field(examples=["domain"])]


class DropOutputs(Operation):
    """Remove outputs with the branches that compute them; all other values stay as they are.

    Training needs the branch of gradient_reversal, or the further tasks of multitask; what is delivered may not. With
    the last branch, the network is of its own class again: a stock one loads without surgeon.
    """

    outputs: OutputName | Annotated[list[OutputName], Field(min_length=1), AfterValidator(_once)]
    """The name of the output, or a list of names."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        """Remove the branches; see :class:`Operation`."""
        for name in [self.outputs] if isinstance(self.outputs, str) else self.outputs:
            surgery.unbranch(name)
        return surgery.model
