"""Names of architectures, and the providers that ship with surgeon.

The hook is implemented here, as a stranger's plugin would. Importing this module imports neither torch
nor the libraries that the providers wrap.
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

__all__ = ["ArchitectureProvider", "parse", "surgeon_architectures"]

_REFERENCE = re.compile(r"(?P<scheme>[A-Za-z][\w-]+)(?P<separator>[:/])(?P<name>[^\\]+)")


@hookimpl
def surgeon_architectures() -> Sequence[ArchitectureProvider]:
    """torchvision's builders, transformers' classes, and importable functions."""
    return [Torchvision(), HuggingFace(), PythonFunction()]


def parse(text: str, schemes: Sequence[str] = ("torchvision", "hf", "python")) -> Architecture:
    """Read ``torchvision/resnet50``, ``hf:org/name`` or ``python:package.module:function``.

    The name is kept as written, ``@WEIGHTS`` or ``@REVISION`` included: its provider's ``locate`` reads it.

    Raises:
        ArchitectureError: The text names no known scheme.
    """
    found = _REFERENCE.fullmatch(text)
    if found and found["scheme"] in schemes:
        return Architecture(scheme=found["scheme"], name=found["name"])
    forms = "torchvision/NAME, hf:ORG/NAME, hf/CLASS, python:package.module:function"
    near = suggest(found["scheme"] if found else text, schemes)
    raise ArchitectureError(f"{text!r} is no architecture", hint=f"write {forms}" + (f"     {near}" if near else ""))


def meant(text: str, providers: Mapping[str, ArchitectureProvider]) -> str | None:
    """The reference that ``text`` is short of, or misspelt: ``torchvision/resnet18`` for ``resnet18``.

    Args:
        text: What is neither a reference nor a path.
        providers: What builds architectures, by scheme; they are asked for their names.
    """
    found = _REFERENCE.fullmatch(text)
    if found:
        scheme = nearest(found["scheme"].casefold(), providers, count=1)
        separator = ":" if scheme == ["python"] else found["separator"]
        return f"{scheme[0]}{separator}{found['name']}" if scheme else None
    if not re.fullmatch(r"[\w-]+(@\w+)?", text):
        return None
    name, at, weights = text.partition("@")
    for scheme_name, provider in providers.items():
        if name.casefold() in provider.names():
            return f"{scheme_name}/{name.casefold()}{at}{weights}"
    return None


def is_reference(text: str, schemes: Sequence[str]) -> bool:
    """True when ``text`` starts with one of ``schemes`` rather than being a path."""
    found = _REFERENCE.fullmatch(text)
    return bool(found and found["scheme"] in schemes)
