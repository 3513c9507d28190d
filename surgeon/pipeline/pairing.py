"""Open two networks for a comparison, and pair their tensors: by name, by where they came from, by name below a prefix.

An artifact's manifest says which tensor of its source each of its tensors came from. Two networks are compared at the
last recipe that both have been through: what was kept since then keeps its name of that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from surgeon.checkpoint.chunks import read_chunks, split
from surgeon.checkpoint.contents import Checkpoint, Entry, memory_entry
from surgeon.checkpoint.formats import open_checkpoint
from surgeon.errors import ArchitectureError, CheckpointError, OperationError, PluginError
from surgeon.graph.sites import select
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.record import Record, Surgeries
from surgeon.pipeline.api import frozen_tensors
from surgeon.surgery.inspection import Inspection
from surgeon.surgery.opened import Model, OpenOptions
from surgeon.surgery.replay import open_network


@dataclass(frozen=True)
class Side:
    """One of two networks that are compared.

    Attributes:
        location: What was opened.
        architecture: What builds it before its operations; None where that is not known.
        entries: Its tensors by their names in the network, or by those in the file where the network is not known. A
            tied tensor stands once.
        values: Whether there are values to compare.
        frozen: The tensors that training leaves as they are; None where that is not known.
        parameters: The tensors that are parameters; None where that is not known.
        inspection: Answers questions about the skeleton; None where the network is not known.
        record: How it was made.
        notes: What was noticed while opening it.
        filled: Counters that the file lacks and that are 0 in the network: nothing to compare.
    """

    location: str
    architecture: str | None
    entries: Mapping[str, Entry]
    values: bool
    frozen: frozenset[str] | None = None
    parameters: frozenset[str] | None = None
    inspection: Inspection | None = None
    record: Record | None = None
    notes: tuple[str, ...] = ()
    filled: frozenset[str] = frozenset()
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    module: Mapping[str, Tensor] | None = field(default=None, repr=False)

    def chunks(self, name: str, elements: int) -> Iterator[Tensor]:
        """Read a tensor in flat pieces of at most ``elements`` elements."""
        if self.module is not None:
            return split(self.module[name], elements)
        if self.checkpoint is None:
            raise CheckpointError(f"no values of '{name}'", where=self.location)
        return read_chunks(self.checkpoint, self.entries[name].name, elements)

    def select(self, selector: str) -> set[str]:
        """The tensors at and below the sites that a selector names.

        Raises:
            SiteError: It names nothing.
        """
        if self.inspection is not None:
            sites = [site.name for site in self.inspection.select(selector)]
        else:
            sites = [site.name for site in select(_tree(self.entries), selector)]
        chosen = set(sites)
        return {name for name in self.entries if any(part in chosen for part in ancestors(name))}

    def blocks(self) -> list[str]:
        """The sites of the repeated blocks; of an unknown network what its names end in a first number with."""
        if self.inspection is not None:
            try:
                return list(self.inspection.roles().block_sites)
            except OperationError:  # nothing runs it, so the names have to do
                pass
        paths = (reversed(ancestors(name)) for name in self.entries)
        numbered = (next((site for site in path if site.rpartition(".")[2].isdigit()), "") for path in paths)
        return list(dict.fromkeys(site for site in numbered if site))


def open_side(model: Model, options: OpenOptions) -> Side:
    """Open a network for a comparison. No weight is read.

    A file whose network is not known is opened too, unless ``options`` say what builds it: its tensors are then
    compared by their names in the file.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
        ArchitectureError: What is no file cannot be built.
    """
    try:
        opened = open_network(model, options)
    except (ArchitectureError, OperationError, PluginError) as error:
        if isinstance(model, nn.Module) or options.arch is not None or not Path(model).exists():
            raise
        return _by_names(str(model), options, f"{error.message}; {error.hint}" if error.hint else error.message)
    source, root = opened.source, opened.root
    known = source.module is not None or source.record is not None
    shared = {
        "architecture": str(source.architecture) if source.architecture else None,
        "frozen": frozenset(frozen_tensors(root)) if known else None,
        "parameters": frozenset(name for name, _ in root.named_parameters()),
        "inspection": opened.inspect(),
        "record": source.record,
        "notes": tuple(source.notes),
        "filled": frozenset(source.filled),
    }
    if source.module is not None:
        tensors = dict(tensors_of(source.module))
        values = not any(tensor.is_meta for tensor in tensors.values())
        entries = {name: memory_entry(name, tensor) for name, tensor in tensors.items()}
        return Side(source.location, entries=entries, values=values, module=tensors, **shared)  # type: ignore[arg-type]
    names = [name for name, _ in tensors_of(root)]
    if source.checkpoint is None:
        skeleton = dict(tensors_of(root))
        entries = {name: Entry(name, tuple(tensor.shape), tensor.dtype) for name, tensor in skeleton.items()}
        return Side(source.location, entries=entries, values=False, **shared)  # type: ignore[arg-type]
    stored = source.checkpoint.entries
    places = {name: opened.mapping.get(name, name) for name in names}
    entries = {name: stored[place] for name, place in places.items() if place in stored}
    return Side(source.location, entries=entries, values=True, checkpoint=source.checkpoint, **shared)  # type: ignore[arg-type]


def _by_names(location: str, options: OpenOptions, why: str) -> Side:
    checkpoint = open_checkpoint(location, trust_pickle=options.trust_pickle, key=options.key)
    manifest = checkpoint.manifest or {}
    entries = {name: entry for name, entry in checkpoint.entries.items() if name not in checkpoint.aliases}
    frozen = manifest.get("frozen")
    return Side(
        location,
        None,
        entries,
        values=True,
        frozen=frozenset(frozen) if isinstance(frozen, list) else None,
        notes=(*checkpoint.notes, f"compared by the names in the file: {why}"),
        checkpoint=checkpoint,
    )


@dataclass(frozen=True)
class Pairing:
    """Which tensors of two networks belong to each other.

    Attributes:
        pairs: The names in A and in B; one of A may stand in several (a column that was copied).
        made: The tensors of B that an operation made or changed, with the operation's name.
        note: How the names were read, where they are not the same.
    """

    pairs: list[tuple[str, str]]
    made: Mapping[str, str]
    note: str | None


@dataclass(frozen=True)
class _Naming:
    """A way to read names: the key of each tensor, by which it finds its partner."""

    keys: Mapping[str, str]
    note: str | None = None


def pair(a: Side, b: Side) -> Pairing:
    """Pair the tensors of two networks in the way in which most of them find one of their shape."""
    surgeries_a, surgeries_b = _surgeries(a), _surgeries(b)
    shared = 0
    for one, other in zip(surgeries_a, surgeries_b, strict=False):
        if one.operations != other.operations:
            break
        shared += 1
    made = {name: by for name in b.entries if (by := _traced_back(name, surgeries_b[shared:])[1])}
    origins = [_kept_names(side, all_[shared:]) for side, all_ in ((a, surgeries_a), (b, surgeries_b))]
    plain = [_Naming({name: name for name in side.entries}) for side in (a, b)]
    choices = [tuple(origins), tuple(plain)] if surgeries_a[shared:] or surgeries_b[shared:] else [tuple(plain)]
    best = max(choices, key=lambda choice: _fits(a, b, *choice))
    if _fits(a, b, *best) < min(len(a.entries), len(b.entries)):
        stripped = [(naming, best[1]) for naming in _without_prefix(best[0], "A")]
        stripped += [(best[0], naming) for naming in _without_prefix(best[1], "B")]
        best = max([best, *stripped], key=lambda choice: _fits(a, b, *choice))
    notes = [naming.note for naming in best if naming.note]
    return Pairing(_pairs(*best), made, "; ".join(notes) or None)


def _surgeries(side: Side) -> Sequence[Surgeries]:
    return side.record.surgeries if side.record is not None else []


def _traced_back(name: str, surgeries: Sequence[Surgeries]) -> tuple[str, str | None]:
    """The name of a tensor before ``surgeries``, or its first name and the operation that made it."""
    for recipe in reversed(surgeries):
        if name not in recipe.kept:
            return name, recipe.made.get(name)
        name = recipe.kept[name]
    return name, None


def _kept_names(side: Side, surgeries: Sequence[Surgeries]) -> _Naming:
    traced = {name: _traced_back(name, surgeries) for name in side.entries}
    kept = {before for before, by in traced.values() if by is None}
    # what an operation made stands against the tensor of its name, unless that was kept under another name
    keys = {
        name: before if by is None or before not in kept else f"{name}, made by {by}"
        for name, (before, by) in traced.items()
    }
    return _Naming(keys)


def _without_prefix(naming: _Naming, side: str) -> Iterator[_Naming]:
    """The namings that take off a prefix that most names share."""
    counts: dict[str, int] = {}
    for key in naming.keys.values():
        parts = key.split(".")
        for depth in range(1, min(4, len(parts))):
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    for prefix, count in counts.items():
        keys = {name: key.removeprefix(prefix) for name, key in naming.keys.items()}
        if 2 * count >= len(keys) and len(set(keys.values())) == len(set(naming.keys.values())):
            yield _Naming(keys, f"names of {side} are compared without '{prefix}'")


def _fits(a: Side, b: Side, naming_a: _Naming, naming_b: _Naming) -> int:
    return sum(a.entries[one].shape == b.entries[other].shape for one, other in _pairs(naming_a, naming_b))


def _pairs(naming_a: _Naming, naming_b: _Naming) -> list[tuple[str, str]]:
    by_key: dict[str, list[str]] = {}
    for name, key in naming_a.keys.items():
        by_key.setdefault(key, []).append(name)
    pairs = []
    for name, key in naming_b.keys.items():
        if candidates := by_key.get(key):
            pairs.append((name if name in candidates else candidates[0], name))
    return pairs


def ancestors(name: str) -> list[str]:
    """The sites around a tensor, the innermost first, the whole network (``""``) last."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(len(parts), -1, -1)]


class Names(nn.Module):
    """The modules that the names of tensors in a file imply."""


def _tree(names: Mapping[str, Entry]) -> nn.Module:
    root = Names()
    for name in names:
        module: nn.Module = root
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module._modules[part] = Names()
            module = module._modules[part]  # type: ignore[assignment]
    return root
