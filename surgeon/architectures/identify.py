"""Fit a checkpoint to an architecture, and identify the architecture of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from surgeon.architectures.fit import fit, naming_notes
from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import ArchitectureError, SurgeonError
from surgeon.graph.skeleton import build_skeleton
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.checked_provider import CheckedProvider
from surgeon.interfaces.match import Match, few


class UnrecognisedError(ArchitectureError):
    """A provider recognises nothing in a checkpoint and only names what is closest: other refusals say more."""


def build(provider: ArchitectureProvider, architecture: Architecture) -> nn.Module:
    """Build the skeleton of ``architecture``.

    Raises:
        ArchitectureError: It cannot be built.
    """
    try:
        return build_skeleton(lambda: provider.build(architecture))
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArchitectureError(f"cannot be built: {reason}", where=str(architecture)) from error


def unprefixed(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """Yield ``checkpoint`` unchanged, then without each prefix that a wrapper may have added."""
    yield checkpoint
    for prefix in checkpoint.prefix_candidates():
        if prefix:
            yield checkpoint.without_prefix(prefix)


def match(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> Match:
    """Fit ``checkpoint`` to an architecture with the variant, prefix and naming that fit best.

    Raises:
        ArchitectureError: It does not fit; the message counts and names the tensors.
    """
    best = _best(provider, architecture, checkpoint)
    _leave_out_siblings(provider, best)
    if not best.fit.contained:
        converted = provider.convert(best.skeleton, checkpoint)
        if converted is not None:
            best = _best(provider, best.architecture, converted)
            _leave_out_siblings(provider, best)
    if not best.fit.contained:
        raise misfit(best)
    return best


def _leave_out_siblings(provider: ArchitectureProvider, best: Match) -> None:
    """Leave out tensors of other heads on the same trunk, if nothing else is wrong."""
    if best.fit.unexpected and not best.fit.misshaped:
        best.fit.leave_out(provider.leftovers(best.architecture, best.fit.unexpected))


def _best(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> Match:
    best: Match | None = None
    skeletons: dict[str, nn.Module] = {}
    for candidate in unprefixed(checkpoint):
        for form in provider.complete(architecture, candidate):
            key = form.model_dump_json()
            if key not in skeletons:
                skeletons[key] = build(provider, form)
            skeleton = skeletons[key]
            for naming in provider.namings(skeleton, candidate.entries):
                result = fit(skeleton, candidate, naming, provider.harmless(skeleton))
                if best is None or result.cost < best.fit.cost:
                    best = Match(form, candidate, skeleton, result, naming_notes(naming))
                if result.cost == 0:
                    return best
    assert best is not None  # there is at least one checkpoint, form and naming
    return best


def misfit(best: Match) -> ArchitectureError:
    """Return the error for a checkpoint that does not fit its stated architecture."""
    result = best.fit
    parts = []
    if result.missing:
        parts.append(f"{len(result.missing)} missing ({few(result.missing)})")
    if result.unexpected:
        parts.append(f"{len(result.unexpected)} unexpected ({few(result.unexpected)})")
    if result.misshaped:
        differences = [f"{name} is {have}, not {want}" for name, (want, have) in result.misshaped.items()]
        parts.append(f"{len(differences)} of another shape ({few(differences, 2)})")
    if best.architecture.scheme == "torchvision":
        hint = "leave --arch out to identify the architecture"
    else:
        hint = f"give the architecture of this file, or options of {best.architecture} that fit it"
    return ArchitectureError(
        f"does not fit {best.architecture}: {len(result.mapping) - len(result.misshaped)} of "
        f"{len(result.mapping) + len(result.missing)} tensors match, " + ", ".join(parts),
        where=best.checkpoint.location,
        hint=hint,
    )


def identify(checkpoint: Checkpoint, providers: Mapping[str, ArchitectureProvider]) -> Match:
    """Ask every provider which architecture ``checkpoint`` belongs to.

    A match of a built-in provider takes precedence, so installing a plugin never changes how a file is read. Only a
    match with rebuilt or omitted parts gives way to one without. Other providers that match are named in a note. A
    provider that raises is skipped.

    Raises:
        ArchitectureError: No provider matches (the closest candidates are named), or several plugins do.
    """
    refused: ArchitectureError | None = None
    matches: dict[str, Match] = {}
    notes: list[str] = []
    for scheme, provider in sorted(providers.items(), key=lambda item: (not _built_in(item[1]), item[0])):
        try:
            match = provider.identify(checkpoint)
        except ArchitectureError as error:
            if refused is None or isinstance(refused, UnrecognisedError):
                refused = error
            continue
        except Exception as error:
            if _built_in(provider):
                raise
            message = error.message if isinstance(error, SurgeonError) else f"{type(error).__name__}: {error}"
            reason = " ".join(message.split())
            notes.append(f"the provider of {scheme!r} failed on this file: {reason}")
            continue
        if match is not None:
            matches[scheme] = match
    if not all(match.changed for match in matches.values()):
        matches = {scheme: match for scheme, match in matches.items() if not match.changed}
    chosen = next((match for scheme, match in matches.items() if _built_in(providers[scheme])), None)
    if chosen is None and len(matches) > 1:
        names = [str(match.architecture) for match in matches.values()]
        raise ArchitectureError(
            f"its {len(checkpoint.entries)} tensors fit {' and '.join(names)}",
            where=checkpoint.location,
            hint=f"choose one: --arch {names[0]}, or arch: {names[0]} in the recipe",
        )
    chosen = chosen or next(iter(matches.values()), None)
    if chosen is None:
        raise refused or ArchitectureError(
            f"the architecture of these {len(checkpoint.entries)} tensors is unknown ({few(checkpoint.entries)})",
            where=checkpoint.location,
            hint="give the architecture: --arch torchvision/NAME, --arch hf:ORG/NAME or "
            "--arch python:package.module:function" + "".join(f"\n    {note}" for note in notes),
        )
    alternatives = [str(match.architecture) for match in matches.values() if match is not chosen]
    if alternatives:
        notes.append(f"{' and '.join(alternatives)} fits too: use --arch {alternatives[0]} to choose it")
    chosen.notes.extend(notes)
    return chosen


def _built_in(provider: ArchitectureProvider) -> bool:
    return not isinstance(provider, CheckedProvider)
