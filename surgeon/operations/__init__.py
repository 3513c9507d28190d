"""Register the built-in operations, through the same hook as a plugin's.

Owns one file for each operation, or a package if it has helpers; ``_shared`` holds what several operations use. May
import ``surgery``, ``training`` (for penalties) and below. Read ``freeze.py`` first, the smallest.

To add an operation: write a file here; name the class in this file (import, ``__all__``, ``surgeon_operations``) and in
``surgeon/__init__.py``; run ``python -m surgeon.recipe.schema > surgeon/recipe.schema.json``.
"""

from __future__ import annotations

from collections.abc import Sequence

from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.operation import Operation
from surgeon.operations.adapt_input.operation import AdaptInput
from surgeon.operations.append import Append
from surgeon.operations.conserve import Conserve
from surgeon.operations.convert import Convert
from surgeon.operations.drop_outputs import DropOutputs
from surgeon.operations.freeze import Freeze
from surgeon.operations.gradient_reversal import GradientReversal
from surgeon.operations.insert import Insert
from surgeon.operations.multitask import Multitask
from surgeon.operations.progressive.operation import Progressive
from surgeon.operations.reinit import Reinit
from surgeon.operations.replace_head.operation import ReplaceHead
from surgeon.operations.stems import Stems
from surgeon.operations.transfer import Transfer
from surgeon.operations.truncate.operation import Truncate
from surgeon.operations.unfreeze import Unfreeze
from surgeon.operations.zero_shot import AddClasses, ZeroShot

__all__ = [
    "AdaptInput",
    "AddClasses",
    "Append",
    "Conserve",
    "Convert",
    "DropOutputs",
    "Freeze",
    "GradientReversal",
    "Insert",
    "Multitask",
    "Progressive",
    "Reinit",
    "ReplaceHead",
    "Stems",
    "Transfer",
    "Truncate",
    "Unfreeze",
    "ZeroShot",
]


@hookimpl
def surgeon_operations() -> Sequence[type[Operation]]:
    """List the built-in operations."""
    return [
        Truncate,
        Freeze,
        ReplaceHead,
        Progressive,
        GradientReversal,
        Multitask,
        Transfer,
        Reinit,
        Insert,
        Append,
        AdaptInput,
        ZeroShot,
        AddClasses,
        Stems,
        Unfreeze,
        Conserve,
        Convert,
        DropOutputs,
    ]
