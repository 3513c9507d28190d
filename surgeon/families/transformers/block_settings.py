"""Find the fields of a transformers config that count or describe its blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from surgeon.families.stack import Stack

if TYPE_CHECKING:
    pass


DEPTH = re.compile(r"(^|_)(n_)?(layers?|blocks?|depths?)(_|$)")


NO_DEPTH = re.compile(r"drop|max_window|_id$|_ids$|index|norm|hidden_act|rate")


NO_COUNT = re.compile(
    r"period|offset|interval|every|freq|step|size|scale|feature|shared|nextn|mtp|adapter|resampler|head|m(ax|in)_depth"
)
"""What else a number that speaks of layers may say: which of them are of some kind, how wide they are, …"""


SIDES = {
    "encoder": "encoder", "decoder": "decoder", "text": "text", "language": "text", "vision": "vision",
    "visual": "vision", "image": "vision", "audio": "audio",
}  # fmt: skip
"""The names by which configs and modules tell the parts of a network from each other."""


def with_config_fields(model: nn.Module, stacks: Sequence[Stack]) -> list[Stack]:
    """The stacks with the settings of the config that speak of their lengths."""
    config = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):
        return list(stacks)
    patterns = [re.sub(r"\d+", "*", stack.container) for stack in stacks]
    described = []
    for stack, pattern in zip(stacks, patterns, strict=True):
        stages = [s for s, p in zip(stacks, patterns, strict=True) if p == pattern]
        fields = tuple(_fields(model, config, stack, stages, several=len(stacks) > 1))
        described.append(replace(stack, config_fields=fields))
    return described


def _fields(model: nn.Module, config: Any, stack: Stack, stages: Sequence[Stack], *, several: bool) -> Iterator[str]:
    if len(stages) > 1:  # one of the stages that a list gives the depths of
        lengths = [len(stage.sites) for stage in stages]
        for field, value in _settings(config):
            if isinstance(value, (list, tuple)) and list(value) == lengths:
                yield f"{field}.{stages.index(stack)}"
        return
    mine = _sides(stack.container)
    count = len(stack.sites)
    candidates = []
    for part, holder in _configs(config):
        for field, value in _settings(holder):
            sides = _sides(f"{part}.{field}") if part else _sides(field)
            counts = isinstance(value, int) and value == count and not isinstance(value, bool)
            lists = isinstance(value, (list, tuple)) and len(value) == count
            if (counts or lists) and not ((several or mine) and sides - mine):
                candidates.append((field, sides))
    named = [field for field, sides in candidates if sides & mine]
    plain = [field for field, sides in candidates if not sides & mine]
    # a decoder that the config names has settings of its own; the plain ones then speak of the encoder
    chosen = named if named and "decoder" in mine else [*named, *plain]
    yield from dict.fromkeys(chosen)


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """The settings of a config of transformers whose names speak of layers."""
    for field, value in vars(config).items() if hasattr(config, "to_dict") else ():
        counts = not (isinstance(value, int) and NO_COUNT.search(field))
        if counts and DEPTH.search(field) and not NO_DEPTH.search(field):
            yield field, value


def _configs(config: Any) -> Iterator[tuple[str, Any]]:
    yield "", config
    for part in getattr(config, "sub_configs", {}):
        holder = getattr(config, part, None)
        if hasattr(holder, "to_dict"):
            yield part, holder


def _sides(text: str) -> set[str]:
    return {side for name, side in SIDES.items() if name in text}
