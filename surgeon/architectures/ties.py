"""Compare tied tensors of which a file holds two entries.

A config with ``tie_word_embeddings: true`` makes one tensor of the embedding and the head. If the file has both, with
different values, the head was trained by itself, and tying it would change every output without a word. Then the
network is built untied, as ``from_pretrained`` does.
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


def with_true_ties(found: Match, provider: ArchitectureProvider) -> Match:
    """Return the match, or one of the untied network where the file holds different values for tied tensors.

    Raises:
        ArchitectureError: The values differ, and nothing says how to build the network untied.
    """
    different = _different(found)
    if not different:
        return found
    first, second = different[0]
    what = f"{first} and {second} are tied, but the file holds different values for them"
    untied = _untied(found.architecture)
    if untied is not None:
        again = match(provider, untied, found.checkpoint)
        if not _different(again) and len(again.fit.missing) <= len(found.fit.missing):
            again.notes.append(f"{first} and {second} differ in the file: they are not tied ({SETTING}: false)")
            return again
    raise ArchitectureError(
        what,
        where=found.checkpoint.location,
        hint=f"drop one of the two from the file, or set {SETTING}: false in its config.json and add what it lacks",
    )


def _different(found: Match) -> list[tuple[str, str]]:
    """The pairs of tied names whose entries in the file differ; entries of the same bytes are not read."""
    first: dict[int, str] = {}
    checkpoint = found.checkpoint
    pairs = []
    for name, tensor in found.skeleton.state_dict(keep_vars=True).items():
        other = first.setdefault(id(tensor), name)
        one, two = found.fit.mapping.get(other), found.fit.mapping.get(name)
        if one is None or two is None or one == two:
            continue
        spans = [checkpoint.entries[entry].bytes for entry in (one, two)]
        if spans[0] is not None and spans[0] == spans[1]:
            continue
        pairs.append((other, name, one, two))
    values = mapped(checkpoint) if pairs else checkpoint
    return [(other, name) for other, name, one, two in pairs if not _same(values.read(one), values.read(two))]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))


def _untied(architecture: Architecture) -> Architecture | None:
    """The same architecture with the setting off, wherever its config has it on."""
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
