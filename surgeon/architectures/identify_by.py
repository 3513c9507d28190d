"""Identify a checkpoint by the names and shapes of its tensors, for the providers of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from surgeon.architectures.fit import fit, shapes_of
from surgeon.architectures.identify import build, unprefixed
from surgeon.checkpoint.formats import Checkpoint
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match

Candidates = Callable[[Mapping[str, tuple[int, ...]]], Iterable[Architecture]]


def identify_by(
    provider: ArchitectureProvider, checkpoint: Checkpoint, candidates: Candidates | None = None
) -> Match | None:
    """Find the network of a provider whose tensors have exactly the names and shapes of those of a checkpoint.

    For ``identify`` of a provider. A prefix that a wrapper adds (``module.``) is left out. Every candidate is built as
    a skeleton, which takes milliseconds; narrow them down where a library has hundreds.

    Args:
        provider: The provider.
        checkpoint: The checkpoint; none of its values is read.
        candidates: The networks to compare with, given the shape of each tensor; so that options that a shape tells,
            such as the number of classes, can be filled in. Default: each of ``provider.names()``.
    """
    for plain in unprefixed(checkpoint):
        shapes = shapes_of(plain)
        for architecture in candidates(shapes) if candidates else _all_of(provider):
            skeleton = build(provider, architecture)
            fitted = fit(skeleton, plain, {name: name for name in plain.entries}, provider.harmless(skeleton))
            if fitted.contained and not fitted.missing:
                return Match(architecture, plain, skeleton, fitted)
    return None


def _all_of(provider: ArchitectureProvider) -> list[Architecture]:
    return [Architecture(scheme=provider.scheme, name=name) for name in provider.names()]
