"""Declared facts about families of networks: where heads, blocks and pools are, and what a network takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from surgeon.interfaces.family import Family
from surgeon.interfaces.hooks import hookimpl


def families_of(model: nn.Module, families: Sequence[Family] = ()) -> Iterator[Family]:
    """The families that ``model`` belongs to: those of plugins first."""
    from surgeon.families.torchvision import TORCHVISION
    from surgeon.families.transformers.heads import TRANSFORMERS

    for family in (*families, *TORCHVISION, *TRANSFORMERS):
        if family.holds(model):
            yield family


@hookimpl
def surgeon_families() -> Sequence[Family]:
    """The families that come with surgeon."""
    from surgeon.families.torchvision import TORCHVISION
    from surgeon.families.transformers.heads import TRANSFORMERS

    return (*TORCHVISION, *TRANSFORMERS)
