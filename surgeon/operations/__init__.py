"""The operations that ship with surgeon, registered through the hook that a stranger's plugin uses."""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.hookspecs import hookimpl
from surgeon.operation import Operation
from surgeon.operations.freeze import Freeze
from surgeon.operations.gradient_reversal import GradientReversal
from surgeon.operations.multitask import Multitask
from surgeon.operations.progressive import Progressive
from surgeon.operations.replace_head import ReplaceHead
from surgeon.operations.truncate import Truncate

__all__ = ["Freeze", "GradientReversal", "Multitask", "Progressive", "ReplaceHead", "Truncate"]


@hookimpl
def surgeon_operations() -> Sequence[type[Operation]]:
    """The six operations of the core."""
    return [Truncate, Freeze, ReplaceHead, Progressive, GradientReversal, Multitask]
