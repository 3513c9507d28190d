"""Specify the hooks that a plugin may implement. The built-in operations are registered through them too.

A hook returns a list or a mapping. surgeon collects those of all plugins and refuses a name that two of them use. No
hook imports torch unless its plugin does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.operation import Operation

PROJECT = "surgeon"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def surgeon_operations() -> Sequence[type[Operation]]:  # type: ignore[empty-body]
    """Return operation classes. A recipe names them by ``Operation.name``."""


@hookspec
def surgeon_architectures() -> Sequence[ArchitectureProvider]:  # type: ignore[empty-body]
    """Return providers, one for each scheme (``torchvision/…``, ``hf:…``, ``python:…``, ``timm/…``)."""


@hookspec
def surgeon_families() -> Sequence[Family]:  # type: ignore[empty-body]
    """Return declared facts about families of networks: where their heads, stems and blocks are."""


@hookspec
def surgeon_losses() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Return losses by name: ``loss(prediction, target) -> Tensor`` of shape ``(batch,)``, one value a sample."""


@hookspec
def surgeon_sources() -> Sequence[type[Source]]:  # type: ignore[empty-body]
    """Return sources of data: subclasses of ``surgeon.Source``, each with a ``load(seed)`` that makes the splits.

    A recipe names them by their field ``source``, as in ``source: Literal["scans"]``.
    """


@hookspec
def surgeon_callbacks() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Return callbacks of the Trainer by name: classes or functions that make one from the recipe's other keys.

    A recipe names them under ``train.callbacks``. A callback may have an attribute ``arguments`` with TrainingArguments
    that it needs; those of the recipe take precedence.
    """


@hookspec
def surgeon_schedules() -> Mapping[str, Callable[..., float]]:  # type: ignore[empty-body]
    """Return curves by name: ``curve(progress, **options) -> float``, with progress from 0 to 1.

    A ``Schedule`` names them as its ``kind``; its ``peak`` multiplies the result.
    """


@hookspec
def surgeon_metrics() -> Mapping[str, Callable[..., float]]:  # type: ignore[empty-body]
    """Return metrics by name: ``metric(prediction, target, **options) -> float``, of all test samples at once.

    A recipe names them under ``train.metrics``.
    """


@hookspec
def surgeon_commands(app: typer.Typer) -> None:
    """Add commands to the command line."""
