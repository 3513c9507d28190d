"""Describe a stack of blocks: its container, its blocks, and the config fields that count them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Stack:
    """Blocks one after the other: of one class, or of several that a config counts together.

    Attributes:
        container: The site that holds them; the root where they are attributes of the network itself.
        sites: The blocks, in executed order.
        config_fields: The settings of the config that count the blocks (``num_hidden_layers``, ``depths.1``
            for the second of a list), and the lists that hold one entry for each (``layer_types``).
        evidence: How it was found.
    """

    container: str
    sites: list[str]
    config_fields: tuple[str, ...] = ()
    evidence: str = ""
