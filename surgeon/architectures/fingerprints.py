"""What tells torchvision's networks apart: digests of their keys and shapes, packaged in ``fingerprints.json``.

A digest is a sum over keys, so that the keys of a head can be taken out of it by subtraction, whatever
their shapes and whether or not they are there. Regenerate the file after an upgrade of torchvision with

    python -m surgeon.architectures.make_fingerprints
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from math import isqrt
from typing import TYPE_CHECKING, Any

from surgeon.architectures.fit import COUNTER, fit, naming_notes, shapes_of
from surgeon.architectures.identify import build, unprefixed
from surgeon.architectures.torchvision_names import readings, unseen
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider, Shapes
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match, few

if TYPE_CHECKING:
    from torch import nn

    from surgeon.checkpoint.formats import Checkpoint

FILE = "fingerprints.json"
MASK = 2**64 - 1


@dataclass(frozen=True)
class Row:
    """One form of one builder."""

    name: str
    options: dict[str, Any]
    module: str
    """The class that the builder returns."""
    trunk: int
    """Digest of the keys that no option shapes."""
    body: int
    """Digest of the keys outside the top-level modules that hold class-dependent tensors."""
    tensors: int
    children: str
    """The names of the top-level modules, in order."""
    free: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Option → key → (the dimension that it sets, by which factor); factor 0 for a position embedding."""
    defaults: dict[str, int] = field(default_factory=dict)

    @property
    def heads(self) -> set[str]:
        """The top-level modules that hold class-dependent tensors."""
        return {top_of(key) for key in self.free.get("num_classes", {})}

    def has_trunk_of(self, keys: Keys) -> bool:
        """True when ``keys``, less those that options shape, are this form's."""
        free = {key for shaped in self.free.values() for key in shaped}
        return keys.without(free) == self.trunk

    def has_body_of(self, keys: Keys) -> bool:
        """True when ``keys`` are this form's with its head, or heads, gone entirely."""
        return bool(self.heads) and keys.total == self.body

    def read_options(self, shapes: Shapes) -> dict[str, Any] | None:
        """The options that tensors of these shapes were made with; None when two tensors disagree."""
        found: dict[str, Any] = {}
        for option, shaped in self.free.items():
            values = {_read(shapes, key, *shaped[key]) for key in shaped if key in shapes}
            if len(values) > 1 or None in values:
                return None
            if values:
                found[option] = values.pop()
        return {option: value for option, value in found.items() if value != self.defaults.get(option)}


class Keys:
    """The digest of a set of keys and shapes."""

    def __init__(self, shapes: Shapes) -> None:
        self.digests = {key: _digest(key, shape) for key, shape in shapes.items() if not COUNTER.search(key)}
        self.total = sum(self.digests.values()) & MASK
        self.tops = {top_of(key) for key in self.digests}

    def without(self, keys: set[str]) -> int:
        """The digest of the keys that are not in ``keys``."""
        return (self.total - sum(self.digests.get(key, 0) for key in keys)) & MASK


def _digest(key: str, shape: tuple[int, ...]) -> int:
    text = f"{key} {list(shape)}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def top_of(key: str) -> str:
    """The top-level module of a key."""
    return key.partition(".")[0]


def class_name(module: nn.Module) -> str:
    """The full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _read(shapes: Shapes, key: str, dimension: int, factor: int) -> int | None:
    if dimension >= len(shapes[key]):
        return None
    size = shapes[key][dimension]
    if factor:
        return size // factor if size % factor == 0 and size else None
    # ViT's position embedding: one row for each patch of a square image, and one for the class token.
    side = isqrt(size - 1)
    patch = shapes.get("conv_proj.weight", (0,))[-1]
    return side * patch if side * side == size - 1 and patch else None


@cache
def table() -> tuple[Row, ...]:
    """The packaged rows: plain builders before their twins."""
    text = files("surgeon.architectures").joinpath(FILE).read_text(encoding="utf-8")
    rows = [Row(**{**row, "trunk": int(row["trunk"], 16), "body": int(row["body"], 16)}) for row in json.loads(text)]
    return tuple(sorted(rows, key=lambda row: (_is_twin(row.name), row.name)))


def _is_twin(name: str) -> bool:
    return name.startswith("quantized_") or "_320_" in name


def identify(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match | None:
    """Which builder made the tensors of ``checkpoint``; None when they resemble no builder's at all.

    Digests first: only the network that they name is built, to confirm it. Where none agrees, every
    builder with similar top-level modules is built and compared key by key.

    Raises:
        ArchitectureError: Several fit, or none does; the closest are named with what they lack.
    """
    for candidate in unprefixed(checkpoint):
        for naming in readings(candidate.entries):
            shapes = {naming[name]: shape for name, shape in shapes_of(candidate).items()}
            keys = Keys(shapes)
            for test in (Row.has_trunk_of, Row.has_body_of):
                rows = [row for row in table() if test(row, keys)]
                found = [_match(provider, row, candidate, naming) for row in rows]
                found = [match for match in found if match.fit.contained]
                if found:
                    return _only(found, checkpoint)
    return _closest(provider, checkpoint)


def _match(provider: ArchitectureProvider, row: Row, checkpoint: Checkpoint, naming: dict[str, str]) -> Match:
    shapes = {naming[name]: shape for name, shape in shapes_of(checkpoint).items()}
    options = {**row.options, **(row.read_options(shapes) or {})}
    plain = Architecture(scheme=provider.scheme, name=row.name, options=options)
    form = next(f for f in provider.complete(plain, checkpoint) if row.options.items() <= f.options.items())
    skeleton = build(provider, form)
    return Match(form, checkpoint, skeleton, fit(skeleton, checkpoint, naming), naming_notes(naming))


def _only(found: list[Match], checkpoint: Checkpoint) -> Match:
    """The one match, or the plain one of twins.

    Raises:
        ArchitectureError: Networks that differ fit alike.
    """
    fewest: dict[str, Match] = {}
    for match in found:
        name = match.architecture.name
        if name not in fewest or match.fit.cost < fewest[name].fit.cost:
            fewest[name] = match
    first, *others = fewest.values()
    keys = {name: tensor.shape for name, tensor in first.skeleton.state_dict().items()}
    twins: list[str] = []
    different: list[str] = []
    for other in others:
        same = {name: tensor.shape for name, tensor in other.skeleton.state_dict().items()} == keys
        (twins if same else different).append(other.architecture.name)
    if different:
        several = sorted(fewest.values(), key=lambda match: match.fit.cost)
        raise ArchitectureError(
            f"its {len(checkpoint.entries)} tensors fit {len(fewest)} networks: " + _listed(several),
            where=checkpoint.location,
            hint=f"say which: --arch {several[0].architecture}",
        )
    first.notes.insert(0, f"identified as {first.architecture} from its keys and shapes")
    if twins:
        first.notes.insert(1, f"{' and '.join(twins)} has the same tensors: the plain one is taken")
    first.notes.extend(unseen(first.architecture))
    return first


def _closest(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match | None:
    compared: list[Match] = []
    for candidate in unprefixed(checkpoint):
        *_, naming = readings(candidate.entries)
        shapes = {naming[name]: shape for name, shape in shapes_of(candidate).items()}
        tops = Keys(shapes).tops
        for row in table():
            if len(tops & set(row.children.split())) * 2 >= len(tops) and not _is_twin(row.name):
                compared.append(_match(provider, row, candidate, naming))
    contained = [match for match in compared if match.fit.contained]
    if contained:
        return _only(contained, checkpoint)
    compared = [match for match in compared if len(match.fit.mapping) > len(match.fit.misshaped)]
    if not compared:
        return None
    best = sorted(compared, key=lambda match: match.fit.cost)
    raise ArchitectureError(
        f"the architecture of these {len(checkpoint.entries)} tensors is unknown; closest: {_listed(best)}",
        where=checkpoint.location,
        hint=f"say what built it: --arch {best[0].architecture} or --arch python:package.module:function",
    )


def _listed(matches: list[Match]) -> str:
    return few((f"{match.architecture.name} ({match.fit.counts()})" for match in matches), 4)
