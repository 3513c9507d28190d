"""Describe a stack of blocks: its container, its blocks, and the config fields that count them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stack:
    """Describe consecutive blocks of one class, or of several classes that one config field counts.

    Attributes:
        container: The site that contains the blocks; ``""`` where they are attributes of the network.
        sites: The blocks, in the order of execution.
        config_fields: Config fields that count the blocks (``num_hidden_layers``; ``depths.1`` for the second entry of
            a list) and lists with one entry per block (``layer_types``).
        evidence: How the stack was identified.
    """

    container: str
    sites: list[str]
    config_fields: tuple[str, ...] = ()
    evidence: str = ""
