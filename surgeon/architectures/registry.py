"""Register the built-in architecture providers, and parse names of architectures.

The hook is implemented as in a plugin. Importing this module does not import torch or the libraries of the providers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from surgeon.architectures.huggingface import HuggingFace
from surgeon.architectures.python import PythonFunction
from surgeon.architectures.torchvision import Torchvision
from surgeon.errors import ArchitectureError, nearest, suggest
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.hooks import hookimpl
from surgeon.interfaces.own_packages import scheme_hint

__all__ = ["ArchitectureProvider", "parse", "surgeon_architectures"]

_REFERENCE = re.compile(r"(?P<scheme>[A-Za-z][\w-]+)(?P<separator>[:/])(?P<name>[^\\]+)")


@hookimpl
def surgeon_architectures() -> Sequence[ArchitectureProvider]:
    """Return the providers for torchvision, transformers and Python functions."""
    return [Torchvision(), HuggingFace(), PythonFunction()]


def parse(text: str, schemes: Sequence[str] = ("torchvision", "hf", "python")) -> Architecture:
    """Read ``torchvision/resnet50``, ``hf:org/name`` or ``python:package.module:function``.

    The name is kept unchanged, with ``@WEIGHTS`` or ``@REVISION``: its provider's ``locate`` parses it.

    Raises:
        ArchitectureError: The text has no known scheme.
    """
    match = _REFERENCE.fullmatch(text)
    if match and match["scheme"] in schemes:
        return Architecture(scheme=match["scheme"], name=match["name"])
    forms = "torchvision/NAME, hf:ORG/NAME, hf/CLASS, python:package.module:function"
    near = suggest(match["scheme"] if match else text, schemes)
    hint = scheme_hint(text) or f"write {forms}" + (f"     {near}" if near else "")
    raise ArchitectureError(f"{text!r} is not an architecture", hint=hint)


def meant(text: str, providers: Mapping[str, ArchitectureProvider]) -> str | None:
    """Return the full reference for a short or misspelt one: ``torchvision/resnet18`` for ``resnet18``.

    Args:
        text: A text that is neither a reference nor a path.
        providers: Providers by scheme, with their names of architectures.
    """
    match = _REFERENCE.fullmatch(text)
    if match:
        scheme = nearest(match["scheme"].casefold(), providers, count=1)
        separator = ":" if scheme == ["python"] else match["separator"]
        return f"{scheme[0]}{separator}{match['name']}" if scheme else None
    if not re.fullmatch(r"[\w-]+(@\w+)?", text):
        return None
    name, at, weights = text.partition("@")
    for scheme_name, provider in providers.items():
        if name.casefold() in provider.names():
            return f"{scheme_name}/{name.casefold()}{at}{weights}"
    return None


def is_reference(text: str, schemes: Sequence[str]) -> bool:
    """Return whether ``text`` is a reference with one of ``schemes`` rather than a path."""
    match = _REFERENCE.fullmatch(text)
    return bool(match and match["scheme"] in schemes)
