"""Name what surgeon's own plugin packages offer, so that an error can say which one to install.

``tests/interfaces/test_own_packages.py`` compares the table with the packages' sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class OwnPackage(NamedTuple):
    """What a package offers: names of operations, schemes of references, methods of its operation ``peft``."""

    operations: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


OWN_PACKAGES = {
    "surgeon-adapt": OwnPackage(("mmd", "coral", "cdan", "mdd", "domain_batch_norm", "keep_domain")),
    "surgeon-peft": OwnPackage(
        ("peft", "merge_adapters"),
        ("peft",),
        ("lora", "dora", "rslora", "ia3", "vera", "oft", "boft", "loha", "lokr", "hra", "fourierft", "ln_tuning"),
    ),
    "surgeon-prune": OwnPackage(("prune_heads", "prune_mlp", "prune_channels", "prune_blocks")),
    "surgeon-squeeze-excitation": OwnPackage(("squeeze_excitation",)),
    "surgeon-timm": OwnPackage(schemes=("timm",)),
}
"""What each package offers."""


def operation_hint(name: str, installed: Iterable[str]) -> str | None:
    """Say which of surgeon's packages has the operation or adaptation method ``name``; None if none has.

    Args:
        name: The unknown name.
        installed: The distributions whose plugins are loaded.
    """
    for distribution, package in OWN_PACKAGES.items():
        if name in package.operations and distribution not in installed:
            return f"it is in {distribution}: {_install(distribution)}"
        if name in package.methods:
            use = f"write op: peft with method: {name}"
            return use if distribution in installed else f"{use}, after {_install(distribution)}"
    return None


def scheme_hint(reference: str) -> str | None:
    """Say which of surgeon's packages opens ``timm/resnet18`` or ``peft:folder``; None if none does."""
    scheme = reference.replace(":", "/").partition("/")[0]
    for distribution, package in OWN_PACKAGES.items():
        if scheme in package.schemes:
            return f"{scheme} is in {distribution}: {_install(distribution)}"
    return None


def _install(distribution: str) -> str:
    return f"python -m pip install {distribution}"
