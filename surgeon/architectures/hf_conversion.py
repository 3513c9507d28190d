"""Convert a checkpoint's tensors as transformers does on loading: rename, fuse experts, split projections.

transformers' rules (``transformers.conversion_mapping``) are applied, but one tensor at a time and only when it is
read, so that a mixture of experts of any size can be planned. Rules that only stack, join or split rows, which nearly
all do, are recognised, and the rows are copied as bytes of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from torch import Tensor, nn

from surgeon.architectures.hf_conversion_runs import MISFIT, meta_of, runs_of
from surgeon.checkpoint.contents import Checkpoint, Entry


@dataclass
class _Group:
    """Tensors of a file that one conversion takes."""

    converter: Any
    """A ``WeightConverter``; copied before use, because it accumulates its inputs."""
    first: str
    """The first tensor that it makes."""
    parts: list[tuple[str, str]] = field(default_factory=list)
    """The names in the file, and the pattern of the converter that matches each."""

    def make(self, read: Callable[[str], Tensor], skeleton: nn.Module) -> dict[str, Tensor]:
        """Return the converted tensors by name."""
        converter = deepcopy(self.converter)
        for name, pattern in self.parts:
            converter.add_tensor(self.first, name, pattern, lambda name=name: read(name))
        converted = converter.convert(self.first, model=skeleton, config=skeleton.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in converted.items()}


def renamed(skeleton: nn.Module, names: Iterable[str]) -> dict[str, str] | None:
    """Rename ``names`` of a file as transformers does on loading; None if it would also change tensors."""
    rules = _Rules.of(skeleton)
    if rules is None:
        return None
    names = list(names)
    result = {}
    for name in names:
        result[name], pattern = rules.apply(name)
        if pattern is not None and result[name] not in names:
            return None
    return result


def rearranged(skeleton: nn.Module, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return ``checkpoint`` converted as transformers does on loading; each tensor is converted when it is read.

    Returns None if there are no rules for this network, or they do not apply to the tensors.
    """
    rules = _Rules.of(skeleton)
    if rules is None:
        return None
    names: dict[str, str] = {}
    groups: dict[str, _Group] = {}
    for name in sorted(checkpoint.entries, key=rules.order):
        new, pattern = rules.apply(name)
        if pattern is None:
            names.setdefault(new, name)
        else:
            group = groups.setdefault(new, _Group(rules.by_pattern[pattern], new))
            group.parts.append((name, pattern))
    if not groups:
        return None
    entries = {new: replace(checkpoint.entries[old], name=new) for new, old in names.items()}
    for group in groups.values():
        try:
            shapes = group.make(lambda name: meta_of(checkpoint.entries[name]), skeleton)
        except MISFIT:
            return None  # the rules do not apply; the error about names is more informative
        for name, shape in shapes.items():
            entries[name] = _entry(group, name, shape, checkpoint, skeleton)
    parts = sum(len(group.parts) for group in groups.values())
    converted = len(entries) - len(names)
    note = f"{parts} tensors rearranged into {converted} as transformers does on loading, such as {next(iter(groups))}"
    aliases = {a: first for a, first in checkpoint.aliases.items() if a in entries and first in entries}
    return replace(checkpoint, entries=entries, aliases=aliases, notes=[*checkpoint.notes, note])


def _entry(group: _Group, name: str, meta: Tensor, checkpoint: Checkpoint, skeleton: nn.Module) -> Entry:
    def make(read: Callable[[str], Tensor]) -> Tensor:
        return group.make(read, skeleton)[name]

    parts = {part: checkpoint.entries[part] for part, _ in group.parts}
    shape = tuple(meta.shape)
    return Entry(
        name,
        shape,
        meta.dtype,
        load=lambda: make(checkpoint.read).contiguous(),
        find_runs=cache(lambda: runs_of(parts, make, shape)),
    )


@dataclass
class _Rules:
    """transformers' rules for loading a network."""

    apply: Callable[[str], tuple[str, str | None]]
    """A name in a file → the name in the network, and the pattern of the converter to use."""
    by_pattern: Mapping[str, Any]
    order: Callable[[str], Any]
    """The sort key for experts: 2 before 10."""

    @classmethod
    def of(cls, skeleton: nn.Module) -> _Rules | None:
        """Return the rules; None if transformers' internals have changed."""
        try:
            from transformers.conversion_mapping import get_model_conversion_mapping
            from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key

            transforms = get_model_conversion_mapping(skeleton)
        except (ImportError, TypeError):
            return None
        converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
        renamings = [transform for transform in transforms if not isinstance(transform, WeightConverter)]
        tensors = skeleton.state_dict()

        def apply(name: str) -> tuple[str, str | None]:
            new, pattern = rename_source_key(name, renamings, converters, skeleton.base_model_prefix, tensors)
            if new not in tensors and name in tensors:  # the network has this name; the rules are for another layout
                return name, None
            return str(new), pattern

        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        return cls(apply, by_pattern, dot_natural_key)
