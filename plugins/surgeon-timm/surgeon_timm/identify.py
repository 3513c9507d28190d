"""Identify timm's builders from a hub folder's ``config.json`` or from the tensors alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from surgeon import Architecture, ArchitectureError, ArchitectureProvider, Match, build_skeleton, match
from surgeon_timm.fingerprints import Row, candidates, read_options, table
from surgeon_timm.structure import structure

if TYPE_CHECKING:
    from surgeon.checkpoint.formats import Checkpoint

SHOWN = 6


def by_config(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match:
    """Match the builder and arguments in timm's ``config.json``.

    Raises:
        ArchitectureError: The installed timm has no such builder, or the tensors do not fit it.
    """
    name, options = _read(checkpoint)
    if name not in provider.names():
        try:
            provider.require(name)
        except ArchitectureError as error:
            error.where = f"{checkpoint.location}/config.json"
            raise
    return match(provider, Architecture(scheme=provider.scheme, name=name, options=options), checkpoint)


def by_tensors(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match | None:
    """Match the builder whose keys and shapes a state dict has.

    Raises:
        ArchitectureError: The tensors fit builders that make different networks.
    """
    for prefix in dict.fromkeys(["", *checkpoint.prefix_candidates()]):
        part = checkpoint.without_prefix(prefix) if prefix else checkpoint
        rows = candidates(_shapes(part))
        matches = _matches(provider, rows, part)
        if matches:
            return _only(matches, checkpoint)
    return None


def completed(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> list[Architecture]:
    """Return an architecture with the options that the tensors show, then as it was given."""
    row = next((row for row in table() if row.name == architecture.name), None)
    if row is None:
        return [architecture]
    skeleton = build_skeleton(lambda: provider.build(architecture))
    stock = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    forms = []
    for options in read_options(row, _shapes(checkpoint), stock):
        forms.append(architecture.model_copy(update={"options": {**architecture.options, **options}}))
    return [*forms, *([architecture] if architecture not in forms else [])]


def _read(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """Return the builder and its options, as timm reads them from the folder."""
    from timm.models._hub import _parse_model_cfg
    from timm.models._pretrained import filter_pretrained_cfg
    from timm.models._registry import _deprecated_models

    try:
        config, name, arguments = _parse_model_cfg(json.loads(json.dumps(checkpoint.config)), {})
        options = {**arguments, "pretrained_cfg": filter_pretrained_cfg(config, remove_source=True)}
        options = json.loads(json.dumps(options))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ArchitectureError(f"timm cannot read it: {reason}", where=f"{checkpoint.location}/config.json") from error
    current = _deprecated_models.get(name) or name
    return current.partition(".")[0], options


def _matches(provider: ArchitectureProvider, rows: list[Row], checkpoint: Checkpoint) -> dict[str, list[Match]]:
    """Return the builders whose tensors a checkpoint has, grouped by the structure of the network that they make."""
    by_structure: dict[str, list[Row]] = {}
    for row in rows:
        by_structure.setdefault(row.structure, []).append(row)
    names = set(provider.names())
    groups: dict[str, list[Match]] = {}
    for twins in by_structure.values():
        present = [row.name for row in twins if row.name in names]
        if not present:
            continue
        try:
            first = match(provider, Architecture(scheme=provider.scheme, name=present[0]), checkpoint)
        except ArchitectureError:
            continue
        group = groups.setdefault(structure(first.skeleton), [])
        for name in present:
            architecture = first.architecture.model_copy(update={"name": name})
            group.append(Match(architecture, first.checkpoint, first.skeleton, first.fit))
    return groups


def _only(groups: dict[str, list[Match]], checkpoint: Checkpoint) -> Match:
    """Return the plainest builder of the only structure."""
    plain = [min(group, key=_plainness) for group in groups.values()]
    if len(plain) > 1:
        names = [match.architecture.name for match in sorted(plain, key=_plainness)]
        raise ArchitectureError(
            f"its {len(checkpoint.entries)} tensors fit {len(names)} networks of timm that compute different things: "
            + _few(names),
            where=checkpoint.location,
            hint=f"choose one: --arch timm/{names[0]}, or arch: timm/{names[0]} in the recipe",
        )
    chosen, group = plain[0], next(iter(groups.values()))
    chosen.notes.insert(0, f"identified as {chosen.architecture} from its keys and shapes")
    other_builders = sorted({match.architecture.name for match in group} - {chosen.architecture.name})
    if other_builders:
        chosen.notes.insert(
            1,
            f"{_few(other_builders)} build the same network; pictures are prepared as for {chosen.architecture.name}: "
            "--arch chooses another",
        )
    return chosen


def _plainness(match: Match) -> tuple[int, str]:
    name = match.architecture.name
    return len(name), name


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry.shape) for name, entry in checkpoint.entries.items()}
