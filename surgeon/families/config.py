"""Read and change the config that a network carries, by the field names that its family declares.

Operations call :class:`NetworkConfig` and do not name fields themselves. So they treat a plugin's network, whose family
declares its fields, like a transformers network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from surgeon.errors import OperationError
from surgeon.families.block_lists import count_at_end, feature_positions, move_states, remaining
from surgeon.interfaces.family import BlockFields, ConfigFields

if TYPE_CHECKING:
    from surgeon.families.stack import Stack


SIDES = {
    "encoder": "encoder", "decoder": "decoder", "text": "text", "language": "text", "vision": "vision",
    "visual": "vision", "image": "vision", "audio": "audio",
}  # fmt: skip
"""Words in the names of configs and modules, and the part of a network that each stands for."""
QUALIFIERS = (
    "aligner", "auxiliary", "coda", "global", "memory_attention", "memory_fuser", "pooler", "pred", "r_layers",
    "spatial", "speech", "t2u", "temporal", "timestamp", "x_layers",
)  # fmt: skip
"""Prefixes of words: a count whose name has one belongs to blocks whose site has it too."""


class NetworkConfig:
    """Wrap a config together with the names of its fields.

    Args:
        config: A mapping or any object with attributes. A network that keeps its settings as attributes is its own
            config.
        fields: The names of the fields.
    """

    def __init__(self, config: Any, fields: ConfigFields) -> None:
        self.config = config
        self.fields = fields

    @property
    def name(self) -> str:
        """The class name of the config, for messages."""
        return type(self.config).__name__

    def settings(self) -> dict[str, Any]:
        """Return the stored fields with their values, without computed properties."""
        return dict(self.config) if isinstance(self.config, Mapping) else vars(self.config)

    def get(self, field: str) -> Any:
        """Return the value of a field or computed property; None if the config lacks it."""
        if isinstance(self.config, Mapping):
            return self.config.get(field)
        return getattr(self.config, field, None)

    def set(self, field: str, value: Any) -> None:
        """Set a field.

        Raises:
            OperationError: The config is immutable.
        """
        try:
            if isinstance(self.config, Mapping):
                self.config[field] = value  # type: ignore[index]
            else:
                setattr(self.config, field, value)
        except (AttributeError, TypeError) as error:
            raise OperationError(
                f"{self.name}.{field} cannot be changed: {error}", hint="let the config be a mutable object"
            ) from error

    def parts(self) -> list[tuple[str, NetworkConfig]]:
        """Return the configs of parts (text tower, image tower) inside this one, by field name."""
        names = [*getattr(self.config, "sub_configs", {}), *self._present(self.fields.parts)]
        candidates = [(name, self.get(name)) for name in dict.fromkeys(names)]
        return [(name, NetworkConfig(part, self.fields)) for name, part in candidates if hasattr(part, "__dict__")]

    def with_parts(self) -> list[NetworkConfig]:
        """Return this config and the configs of its parts."""
        return [self, *(part for _, part in self.parts())]

    # ---- classes

    def set_labels(self, names: Sequence[str] | int, problem_type: str | None) -> None:
        """Set the number of classes, their names and the kind of labels.

        Args:
            names: The names of the classes, or their number.
            problem_type: None to let the loss follow the dtype of the labels.
        """
        count = names if isinstance(names, int) else len(names)
        texts = [f"LABEL_{i}" for i in range(names)] if isinstance(names, int) else list(names)
        for field in self._present(self.fields.class_count):
            if isinstance(self.get(field), int):
                self.set(field, count)
        self.name_classes(texts)
        kind = self.fields.problem_type
        if kind is not None and (isinstance(self.config, Mapping) or hasattr(self.config, kind)):
            self.set(kind, problem_type)

    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes in order; empty if they are only numbered, as in "LABEL_0"."""
        for value in map(self.get, self._present(self.fields.class_names, computed=True)):
            try:
                ordered = [value[key] for key in sorted(value, key=int)] if isinstance(value, Mapping) else list(value)
            except (TypeError, ValueError):  # not a mapping from numbers, nor a list
                continue
            names = tuple(str(name) for name in ordered)
            if not all(re.fullmatch(r"LABEL_\d+", name) for name in names):
                return names
        return ()

    def name_classes(self, names: Sequence[str]) -> None:
        """Set the names of the classes, as many as there are."""
        for field in self._present(self.fields.class_names, computed=True):
            listed = isinstance(self.get(field), (list, tuple))
            self.set(field, type(self.get(field))(names) if listed else dict(enumerate(names)))
        for field in self._present(self.fields.class_numbers, computed=True):
            self.set(field, {name: i for i, name in enumerate(names)})

    def set_count(self, fields: Sequence[str], count: int) -> None:
        """Set the width of the head if that is not the number of classes: a CTC head's ``vocab_size``."""
        for field in self._present(fields):
            self.set(field, count)

    def untie(self) -> None:
        """Set the flag of tied embeddings to False: the output layer has its own weight."""
        for field in self._present(self.fields.tied, computed=True):
            if self.get(field):
                self.set(field, False)

    # ---- images

    def set_channels(self, old: int, channels: int) -> None:
        """Set every field that counts ``old`` channels to ``channels``."""
        for field in self._present(self.fields.channels):
            if self.get(field) == old:
                self.set(field, channels)

    @property
    def image_size(self) -> int | None:
        """The side of the square input images; None if the config has no such field."""
        for field in self._present(self.fields.image_size, computed=True):
            size = self.get(field)
            if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
                size = size[0]
            if isinstance(size, int):
                return size
        return None

    @property
    def patch_size(self) -> int | None:
        """The side of the square patches; None if the config has no such field."""
        values = (self.get(field) for field in self.fields.patch_size)
        return next((value for value in values if isinstance(value, int)), None)

    def set_image_size(self, side: int) -> None:
        """Set the image size to squares of ``side`` pixels, as a number or a pair like the value before.

        Raises:
            OperationError: ``side`` is not a multiple of the patch size.
        """
        patch = self.patch_size
        if patch and side % patch:
            below, above = side // patch * patch, -(-side // patch) * patch
            raise OperationError(
                f"an image size of {side} is not a multiple of the patch size {patch}",
                hint=f"take {below or above} or {above}",
            )
        for field in self._present(self.fields.image_size, computed=True):
            value = self.get(field)
            self.set(field, side if isinstance(value, int) else type(value)((side, side)))

    def set_token_count(self, count: int) -> None:
        """Set the number of position embeddings."""
        for field in self._present(self.fields.token_count):
            self.set(field, count)

    # ---- blocks

    def block_fields(self, stack: Stack, stages: Sequence[Stack], *, several: bool) -> list[str]:
        """Return the fields that count the blocks of ``stack`` or have one entry per block.

        Args:
            stack: The stack of blocks. Its length and the words in its container's site select the fields.
            stages: The stacks at similar sites, with ``stack``: a list of depths may count all of them.
            several: Whether the network has other stacks.

        Returns:
            Field names of this config or its parts; ``depths.1`` is the second entry of a list.
        """
        names = self._blocks(stack.container)
        if len(stages) > 1:
            lengths = [len(stage.sites) for stage in stages]
            fields = [f for f in self._present(names.depths) if _as_list(self.get(f)) == lengths]
            return [f"{field}.{stages.index(stack)}" for field in fields]
        container_words, count = _words(stack.container), len(stack.sites)
        candidates = []
        for part, holder in [("", self), *self.parts()]:
            fitting = holder._counting(names, count)
            candidates += [(field, _words(f"{part}.{field}")) for field in fitting]
        if several or container_words:
            candidates = [
                (field, field_words) for field, field_words in candidates if not field_words - container_words
            ]
        named = [field for field, field_words in candidates if field_words & container_words]
        plain = [field for field, field_words in candidates if not field_words & container_words]
        # where the config names the decoder, fields without a qualifier count the encoder's blocks
        chosen = named if named and "decoder" in container_words else [*named, *plain]
        return list(dict.fromkeys(chosen))

    def described(self, stacks: Sequence[Stack]) -> list[Stack]:
        """Return the stacks with the config fields that count their blocks."""
        patterns = [like_sites(stack.container) for stack in stacks]
        described = []
        for stack, pattern in zip(stacks, patterns, strict=True):
            stages = [s for s, p in zip(stacks, patterns, strict=True) if p == pattern]
            fields = self.block_fields(stack, stages, several=len(stacks) > 1)
            described.append(replace(stack, config_fields=tuple(fields)))
        return described

    def counts_together(self, count: int) -> bool:
        """Return whether a field counts ``count`` blocks or has one entry per block, whatever the blocks' classes."""
        return any(bool(self._counting(names, count)) for names in self.fields.blocks)

    def kinds(self, container: str, count: int) -> list[str]:
        """Return the kind of each of ``count`` blocks; empty if the config does not say."""
        for field in self._blocks(container).kinds:
            kinds = self.get(field)
            if isinstance(kinds, (list, tuple)) and len(kinds) == count and all(isinstance(k, str) for k in kinds):
                return list(kinds)
        return []

    def computes_kinds(self, container: str) -> bool:
        """Return whether the config computes the kinds of blocks from other fields, so that they cannot be set."""
        names = self._blocks(container)
        return not {f for f in self._present(names.entries) if f in names.kinds} and not self._present(names.cycles)

    def attending(self, container: str, count: int) -> list[int]:
        """Return the positions of blocks whose caches have the sequence length; empty if the config does not say."""
        if self.get("use_cache") is None:  # not a decoder
            return []
        patterns = self._blocks(container).attends
        return [i for i, kind in enumerate(self.kinds(container, count)) if _matches(kind, patterns)]

    def feature_blocks(self, container: str, count: int) -> dict[str, list[int]]:
        """Return the fields that say which blocks other parts read features from, with those positions."""
        names = self._blocks(container)
        read = {field: feature_positions(self.get(field), count) for field in self._about(container, names.features)}
        states = {
            field: feature_positions(self.get(field), count, states=True)
            for field in self._about(container, names.states)
        }
        return {field: positions for field, positions in {**read, **states}.items() if positions}

    def read_blocks(self, container: str, count: int) -> dict[int, int]:
        """Return, for each block that reuses another block's keys and values, the position of that block."""
        kinds = self.kinds(container, count) or [""] * count
        read: dict[int, int] = {}
        for modes in (self.get(field) for field in self._blocks(container).sharing):
            if isinstance(modes, (list, tuple)) and len(modes) == count:
                stores = [i for i, mode in enumerate(modes) if mode == "store"]
                for index in (i for i, mode in enumerate(modes) if mode == "reuse"):
                    before = [i for i in stores if i < index and kinds[i] == kinds[index]]
                    read |= {index: before[-1]} if before else {}
        return read

    def keep_blocks(
        self, container: str, count: int, indices: Sequence[int], *, fields: Iterable[str], moved: Mapping[int, int]
    ) -> dict[str, tuple[Any, Any]]:
        """Update the config after only the blocks at ``indices`` are kept, in that order.

        Args:
            container: The site of the container of the blocks.
            count: The number of blocks before.
            indices: The old positions of the kept blocks.
            fields: The result of :meth:`block_fields` for the network's config; copies of it in modules use the same.
            moved: Old positions to new ones, for lists of positions.

        Returns:
            The changed fields, with old and new values.

        Raises:
            OperationError: The config computes the kinds of blocks from other fields, and the result differs from the
                kept blocks.
        """
        kinds = self.kinds(container, count)
        names = self._blocks(container)
        changes = self._block_changes(fields, count, indices)
        for field in self._about(container, (*names.positions, *names.features)):
            value = self.get(field)
            if field not in changes and isinstance(value, (list, tuple)):
                changes[field] = remaining(value, moved)
        for field in self._about(container, names.cycles):
            if (cycle := self.get(field)) and self.kinds(container, count):
                changes[field] = type(cycle)(cycle[i % len(cycle)] for i in indices)
        for field in self._about(container, names.states):
            changes[field] = move_states(self.get(field), moved)
        for field, last in [(f, False) for f in names.first] + [(f, True) for f in names.last]:
            if isinstance(value := self.get(field), int) and field in self.settings() and 0 < value <= count:
                changes[field] = count_at_end(value, count, indices, last=last, field=field, container=container)
        before = {field: self.get(field) for field in changes}
        for field, value in changes.items():
            self.set(field, value)
        computed = self.kinds(container, len(indices))
        kept_kinds = [kinds[i] for i in indices if kinds]
        if kinds and computed and computed != kept_kinds:
            attending = self._first_attending(container, kinds)
            raise OperationError(
                f"{self.name} computes the kinds of blocks from other fields and would get {', '.join(computed)} for "
                f"{container}; the kept blocks are {', '.join(kept_kinds)}",
                hint=f"keep the first blocks: keep_blocks: {max(len(kept_kinds), attending + 1)}",
            )
        return {field: (before[field], value) for field, value in changes.items() if before[field] != value}

    # ---- private

    def _blocks(self, container: str) -> BlockFields:
        rows = (row for row in self.fields.blocks if fnmatchcase(container, row.container))
        return next(rows, BlockFields())

    def _present(self, patterns: Sequence[str], *, computed: bool = False) -> list[str]:
        """Return the config's fields that match ``patterns``, in the config's order; computed properties on request."""
        fields = [field for field in self.settings() if _matches(field, patterns)]
        if computed and not isinstance(self.config, Mapping):
            fields += [p for p in patterns if p not in fields and self.get(p) is not None]
        return fields

    def _about(self, container: str, patterns: Sequence[str]) -> list[str]:
        """Return the fields that match ``patterns`` and do not belong to another part of the network."""
        container_sides = sides(container)
        return [field for field in self._present(patterns) if not (container_sides and sides(field) - container_sides)]

    def _counting(self, names: BlockFields, count: int) -> list[str]:
        fitting = []
        for field, value in self.settings().items():
            number = isinstance(value, int) and not isinstance(value, bool) and value == count
            listed = isinstance(value, (list, tuple)) and len(value) == count
            if (number and _matches(field, names.counts)) or (listed and _matches(field, names.entries)):
                fitting.append(field)
        return fitting

    def _block_changes(self, fields: Iterable[str], count: int, indices: Sequence[int]) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for path in fields:
            field, _, position = path.partition(".")
            value = changes.get(field, self.get(field))
            if position and isinstance(value, (list, tuple)):
                lengths = list(value)
                lengths[int(position)] = len(indices)
                changes[field] = type(value)(lengths)
            elif isinstance(value, (list, tuple)) and len(value) == count:
                changes[field] = type(value)(value[i] for i in indices)
            elif isinstance(value, int) and value == count:
                changes[field] = len(indices)
        return changes

    def _first_attending(self, container: str, kinds: Sequence[str]) -> int:
        patterns = self._blocks(container).attends
        return next((i for i, kind in enumerate(kinds) if _matches(kind, patterns)), 0)


def sides(text: str) -> set[str]:
    """Return the parts of a network that a site or field names: encoder, decoder, text, vision, audio."""
    return {side for name, side in SIDES.items() if name in text}


def _words(text: str) -> set[str]:
    spaced = f"_{text.replace('.', '_')}"
    return sides(text) | {word for word in QUALIFIERS if f"_{word}" in spaced}


def like_sites(container: str) -> str:
    """Replace the numbers in a site by ``*``, so that the containers of stages compare equal."""
    return re.sub(r"\d+", "*", container)


def _as_list(value: Any) -> list[Any] | None:
    return list(value) if isinstance(value, (list, tuple)) else None


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a pattern matches and none of the patterns that begin with ``!`` does."""
    excluded = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, p) for p in included) and not any(fnmatchcase(name, p) for p in excluded)
