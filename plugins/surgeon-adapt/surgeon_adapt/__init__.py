"""Add domain adaptation to surgeon: ``mmd`` and ``coral``.

Read ``matching.py`` first. ``distances.py`` has the distances between distributions, ``fields.py`` the keys that
operations share. Importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon import hookimpl
from surgeon_adapt.matching import MMD, Coral

if TYPE_CHECKING:
    from surgeon import Operation

__all__ = ["MMD", "Coral"]


@hookimpl
def surgeon_operations() -> list[type[Operation]]:
    """Return the operations of this plugin."""
    return [MMD, Coral]
