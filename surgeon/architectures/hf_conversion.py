"""What transformers makes of a checkpoint's tensors on loading: other names, experts fused, projections split.

Its own rules are applied (``transformers.conversion_mapping``), but one tensor at a time and only when that tensor is
read, so that a mixture of experts of any size can be planned. What only stacks, joins or splits rows, as nearly all
rules do, is found out to be runs of the file's own bytes, and copied as such.
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
    """Tensors of a file that become others together."""

    converter: Any
    """A ``WeightConverter``; never used itself, since it collects what it is given."""
    first: str
    """The first tensor that it makes."""
    parts: list[tuple[str, str]] = field(default_factory=list)
    """The names in the file, and the pattern of the converter that each answers to."""

    def make(self, read: Callable[[str], Tensor], skeleton: nn.Module) -> dict[str, Tensor]:
        """The tensors that come of the parts, by name."""
        converter = deepcopy(self.converter)
        for name, pattern in self.parts:
            converter.add_tensor(self.first, name, pattern, lambda name=name: read(name))
        made = converter.convert(self.first, model=skeleton, config=skeleton.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def renamed(skeleton: nn.Module, names: Iterable[str]) -> dict[str, str] | None:
    """``names`` of a file as transformers renames them on loading; None where it would change tensors too."""
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
    """``checkpoint`` as transformers rearranges it on loading, each tensor when it is read.

    None where it has no rules for this network, or these do not apply to the tensors.
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
            return None  # the tensors are not what the rules are for: the misfit of the names says more
        for name, shape in shapes.items():
            entries[name] = _entry(group, name, shape, checkpoint, skeleton)
    parts = sum(len(group.parts) for group in groups.values())
    made = len(entries) - len(names)
    note = f"{parts} tensors rearranged into {made} as transformers does on loading, such as {next(iter(groups))}"
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
    """transformers' rules for loading one network."""

    apply: Callable[[str], tuple[str, str | None]]
    """A name in a file → the name here, and the pattern of the converter that it goes through."""
    by_pattern: Mapping[str, Any]
    order: Callable[[str], Any]
    """The key that experts are put in order by: 2 before 10."""

    @classmethod
    def of(cls, skeleton: nn.Module) -> _Rules | None:
        """None in a transformers whose internals are others."""
        try:
            from transformers.conversion_mapping import get_model_conversion_mapping
            from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key

            transforms = get_model_conversion_mapping(skeleton)
        except (ImportError, TypeError):
            return None
        converters = [each for each in transforms if isinstance(each, WeightConverter)]
        renamings = [each for each in transforms if not isinstance(each, WeightConverter)]
        tensors = skeleton.state_dict()

        def apply(name: str) -> tuple[str, str | None]:
            new, pattern = rename_source_key(name, renamings, converters, skeleton.base_model_prefix, tensors)
            if new not in tensors and name in tensors:  # saved under its own name: the rules are for another layout
                return name, None
            return str(new), pattern

        by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
        return cls(apply, by_pattern, dot_natural_key)
