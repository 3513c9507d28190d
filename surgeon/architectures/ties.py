"""Compare tied tensors for which a file has two entries.

A config with ``tie_word_embeddings: true`` makes one tensor of embedding and head. If the file has different values for
both, the head was trained separately, and tying would silently change every output. The network is then built untied,
as ``from_pretrained`` does.
"""

from __future__ import annotations

from typing import Any

import torch

from surgeon.architectures.identify import match
from surgeon.checkpoint.mapping import mapped
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match

SETTING = "tie_word_embeddings"


def with_true_ties(matched: Match, provider: ArchitectureProvider) -> Match:
    """Return the match, or a match of the untied network if the file has different values for tied tensors.

    Raises:
        ArchitectureError: The values differ, and the network cannot be built untied.
    """
    different = _different(matched)
    if not different:
        return matched
    first, second = different[0]
    problem = f"{first} and {second} are tied, but the file holds different values for them"
    untied = _untied(matched.architecture)
    if untied is not None:
        untied_match = match(provider, untied, matched.checkpoint)
        if not _different(untied_match) and len(untied_match.fit.missing) <= len(matched.fit.missing):
            untied_match.notes.append(
                f"{first} and {second} differ in the file, so they are not tied ({SETTING}: false)"
            )
            return untied_match
    raise ArchitectureError(
        problem,
        where=matched.checkpoint.location,
        hint=f"drop one of them from the file, or set {SETTING}: false in its config.json and add the missing tensor",
    )


def _different(matched: Match) -> list[tuple[str, str]]:
    """Return the pairs of tied names whose entries differ; entries with the same bytes are not read."""
    first: dict[int, str] = {}
    checkpoint = matched.checkpoint
    pairs = []
    for name, tensor in matched.skeleton.state_dict(keep_vars=True).items():
        first_name = first.setdefault(id(tensor), name)
        one, two = matched.fit.mapping.get(first_name), matched.fit.mapping.get(name)
        if one is None or two is None or one == two:
            continue
        spans = [checkpoint.entries[entry].bytes for entry in (one, two)]
        if spans[0] is not None and spans[0] == spans[1]:
            continue
        pairs.append((first_name, name, one, two))
    values = mapped(checkpoint) if pairs else checkpoint
    return [(first_name, name) for first_name, name, one, two in pairs if not _same(values.read(one), values.read(two))]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))


def _untied(architecture: Architecture) -> Architecture | None:
    """Return the same architecture with the setting off wherever its config has it on."""
    config = architecture.options.get("config")
    if not isinstance(config, dict):
        return None
    changed = _switched_off(config)
    if changed == config:
        return None
    return architecture.model_copy(update={"options": {**architecture.options, "config": changed}})


def _switched_off(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: False if key == SETTING and part is True else _switched_off(part) for key, part in value.items()}
