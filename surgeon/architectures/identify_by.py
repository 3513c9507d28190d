"""Identify a checkpoint by the names and shapes of its tensors, for the providers of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from surgeon.architectures.fingerprint_table import Table, candidates_of
from surgeon.architectures.fit import fit, shapes_of
from surgeon.architectures.identify import build, unprefixed
from surgeon.architectures.same_structure import same_structure
from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match, few

Candidates = Callable[[Mapping[str, tuple[int, ...]]], Iterable[Architecture]]


def identify_by(
    provider: ArchitectureProvider,
    checkpoint: Checkpoint,
    candidates: Candidates | None = None,
    *,
    table: Table | None = None,
) -> Match | None:
    """Find the network of a provider whose tensors have exactly the names and shapes of those of a checkpoint.

    For ``identify`` of a provider. A prefix that a wrapper adds (``module.``) is left out. Every candidate is built as
    a skeleton, which takes milliseconds; narrow them down where a library has hundreds. Where several fit and are the
    same network, the first is taken and a note names the others.

    Args:
        provider: The provider.
        checkpoint: The checkpoint; none of its values is read.
        candidates: The networks to compare with, given the shape of each tensor; so that options that a shape tells,
            such as the number of classes, can be filled in. Default: each of ``provider.names()``.
        table: Digests of the networks, from :func:`fingerprint_table`: only what they name is built.

    Raises:
        ArchitectureError: Networks that compute different things fit.
    """
    for plain in unprefixed(checkpoint):
        if table is not None:
            chosen: Iterable[Architecture] = candidates_of(table, provider, plain)
        else:
            chosen = candidates(shapes_of(plain)) if candidates else _all_of(provider)
        fitted = (_fitted(provider, architecture, plain) for architecture in chosen)
        matches = [match for match in fitted if match is not None]
        if matches:
            return _only(matches)
    return None


def _fitted(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> Match | None:
    skeleton = build(provider, architecture)
    fitted = fit(skeleton, checkpoint, {name: name for name in checkpoint.entries}, provider.harmless(skeleton))
    return Match(architecture, checkpoint, skeleton, fitted) if fitted.contained and not fitted.missing else None


def _only(matches: list[Match]) -> Match:
    """Return the first of several matches, if all are the same network."""
    first, *rest = matches
    if different := [match for match in rest if not same_structure(match.skeleton, first.skeleton)]:
        names = [str(match.architecture) for match in (first, *different)]
        raise ArchitectureError(
            f"its {len(first.checkpoint.entries)} tensors fit {len(names)} networks that compute different things: "
            f"{few(names, 6)}",
            where=first.checkpoint.location,
            hint=f"choose one: --arch {names[0]}, or arch: {names[0]} in the recipe",
        )
    if rest:
        first.notes.append(f"{few([str(match.architecture) for match in rest])} builds the same network")
    return first


def _all_of(provider: ArchitectureProvider) -> list[Architecture]:
    return [Architecture(scheme=provider.scheme, name=name) for name in provider.names()]
