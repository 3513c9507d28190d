"""Add structured pruning to surgeon: ``prune_heads``, ``prune_mlp``, ``prune_channels``, ``prune_blocks``.

Read ``groups.py`` first: what is removed together. ``attention.py`` and ``dependency.py`` find groups,
``importance.py`` ranks units, with ``activations.py`` on data, ``probe.py`` checks groups on random values,
``stock.py`` keeps configs true. Importing the package imports neither torch nor torch-pruning.
"""

from __future__ import annotations

from surgeon import Operation, hookimpl
from surgeon_prune.blocks import PruneBlocks
from surgeon_prune.channels import PruneChannels
from surgeon_prune.heads import PruneHeads
from surgeon_prune.mlp import PruneMlp

__all__ = ["PruneBlocks", "PruneChannels", "PruneHeads", "PruneMlp"]


@hookimpl
def surgeon_operations() -> list[type[Operation]]:
    """Return the operations of this plugin."""
    return [PruneHeads, PruneMlp, PruneChannels, PruneBlocks]
