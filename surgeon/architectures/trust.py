"""Decide whose code may run: code that the caller typed or trusts, never library functions by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from surgeon.errors import ArchitectureError

if TYPE_CHECKING:
    from surgeon.plugins import Plugins

LIBRARIES = frozenset({"builtins", "surgeon", "torch", "torchvision", "transformers"}) | sys.stdlib_module_names
"""Packages whose functions are never called by name: they do far more than build networks."""

TrustCode = str | Sequence[str]
"""Modules (``package.module``) or functions (``package.module:function``)."""


def with_trust(plugins: Plugins, trust_code: TrustCode, *typed: object) -> Plugins:
    """Return plugins that also trust the code that the caller named in this call.

    Args:
        plugins: The plugins.
        trust_code: Modules, named in a recipe or manifest, that may run.
        typed: The model and architecture that the caller gave; ``python:`` references among them may run.

    Raises:
        ArchitectureError: ``trust_code`` names a module of the standard library, torch or surgeon.
    """
    names = [trust_code] if isinstance(trust_code, str) else list(trust_code)
    names = [name.removeprefix("python:") for name in names]
    for name in names:
        refuse_libraries(name, f"--trust-code {name}")
    names += [text.removeprefix("python:") for text in typed if isinstance(text, str) and text.startswith("python:")]
    return plugins.trusting(names) if names else plugins


def refuse_libraries(name: str, where: str) -> None:
    """Refuse a module of the standard library, torch or surgeon.

    Raises:
        ArchitectureError: The name is such a module.
    """
    package = name.partition(":")[0].partition(".")[0]
    if package in LIBRARIES:
        raise ArchitectureError(
            f"uses code of {package}, which surgeon does not call by name",
            where=where,
            hint="give your own function that builds the network: python:package.module:function",
        )
