"""Whose code may run: what the caller typed or trusts, and never a library's functions by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surgeon.errors import ArchitectureError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

LIBRARIES = frozenset({"builtins", "surgeon", "torch", "torchvision", "transformers"}) | sys.stdlib_module_names
"""Packages of which nothing is called by name: their functions do far more than build networks."""

TrustCode = str | Sequence[str]
"""Modules (``package.module``), or single functions of them (``package.module:function``)."""


def with_trust(plugins: Plugins, trust_code: TrustCode, *typed: object) -> Plugins:
    """Let code run that the caller named in this very call.

    Args:
        plugins: The plugins at hand.
        trust_code: The modules, named by a recipe or a manifest, that may run.
        typed: What the caller gave as model or architecture; ``python:`` references among it may run.

    Raises:
        ArchitectureError: ``trust_code`` names a module of the standard library, of torch or of surgeon.
    """
    names = [trust_code] if isinstance(trust_code, str) else list(trust_code)
    names = [name.removeprefix("python:") for name in names]
    for name in names:
        refuse_libraries(name, f"--trust-code {name}")
    names += [text.removeprefix("python:") for text in typed if isinstance(text, str) and text.startswith("python:")]
    return plugins.trusting(names) if names else plugins


def refuse_libraries(name: str, where: str) -> None:
    """Refuse a module of the standard library, of torch or of surgeon.

    Raises:
        ArchitectureError: It is one.
    """
    package = name.partition(":")[0].partition(".")[0]
    if package in LIBRARIES:
        raise ArchitectureError(
            f"names code of {package}, which surgeon never calls by name",
            where=where,
            hint="name a function of your own that builds the network: python:package.module:function",
        )
