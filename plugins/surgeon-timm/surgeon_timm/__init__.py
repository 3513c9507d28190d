"""Let surgeon work on timm's networks: ``timm/NAME``, timm's hub folders and bare state dicts.

Read ``provider.py`` first. ``families.py`` says where the heads and stems are, ``pictures.py`` how pictures become
inputs, ``fingerprints.py`` which builder a state dict is of. Importing this module imports neither torch nor timm.
"""

from __future__ import annotations

from surgeon import ArchitectureProvider, Family, hookimpl
from surgeon_timm.families import FAMILIES
from surgeon_timm.provider import Timm


@hookimpl
def surgeon_architectures() -> list[ArchitectureProvider]:
    """Return the provider of ``timm/NAME``."""
    return [Timm()]


@hookimpl
def surgeon_families() -> list[Family]:
    """Return where the heads, stems and blocks of timm's classes are."""
    return list(FAMILIES)
