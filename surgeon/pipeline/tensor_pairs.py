"""Open two networks for a comparison, and pair their tensors: by name, by origin, or by name below a prefix.

An artifact's manifest records which tensor of its source each of its tensors comes from. Two networks are compared at
the last recipe that they share: tensors kept since then are matched by their names at that time.
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
    """One of two networks to compare.

    Attributes:
        location: The location that was opened.
        architecture: What builds it before its operations; None if unknown.
        entries: Its tensors by name in the network, or in the file if the network is unknown. A tied tensor occurs
            once.
        values: Whether it has values to compare.
        frozen: The frozen tensors; None if unknown.
        parameters: The tensors that are parameters; None if unknown.
        inspection: Answers questions about the skeleton; None if the network is unknown.
        record: How it was made.
        notes: Remarks about opening it.
        filled: Counters that the file lacks and that are 0 in the network, so there is nothing to compare.
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
        """Return the tensors at and below the sites that a selector matches.

        Raises:
            SiteError: The selector matches nothing.
        """
        if self.inspection is not None:
            sites = [site.name for site in self.inspection.select(selector)]
        else:
            sites = [site.name for site in select(_tree(self.entries), selector)]
        chosen = set(sites)
        return {name for name in self.entries if any(part in chosen for part in ancestors(name))}

    def blocks(self) -> list[str]:
        """Return the sites of repeated blocks; for an unknown network, the first numbered part of each name."""
        if self.inspection is not None:
            try:
                return list(self.inspection.roles().block_sites)
            except OperationError:  # it does not run, so only names are left
                pass
        paths = (reversed(ancestors(name)) for name in self.entries)
        numbered = (next((site for site in path if site.rpartition(".")[2].isdigit()), "") for path in paths)
        return list(dict.fromkeys(site for site in numbered if site))


def open_side(model: Model, options: OpenOptions) -> Side:
    """Open a network for a comparison. Reads no weights.

    A file with an unknown network is opened too, unless ``options`` say what builds it: its tensors are then compared
    by their names in the file.

    Raises:
        CheckpointError: The file does not exist or cannot be read.
        ArchitectureError: A network given by name cannot be built.
    """
    try:
        opened = open_network(model, options)
    except (ArchitectureError, OperationError, PluginError) as error:
        if isinstance(model, nn.Module) or options.arch is not None or not Path(model).exists():
            raise
        return _by_names(str(model), options, f"{error.message}; {error.hint}" if error.hint else error.message)
    source, root = opened.source, opened.root
    has_modes = source.module is not None or source.record is not None
    shared = {
        "architecture": str(source.architecture) if source.architecture else None,
        "frozen": frozenset(frozen_tensors(root)) if has_modes else None,
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


def _by_names(location: str, options: OpenOptions, reason: str) -> Side:
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
        notes=(*checkpoint.notes, f"compared by the names in the file: {reason}"),
        checkpoint=checkpoint,
    )


@dataclass(frozen=True)
class Pairing:
    """The correspondence between the tensors of two networks.

    Attributes:
        pairs: Names in A and B; a tensor of A may occur several times (a copied column).
        made: The tensors of B that an operation made or changed, with the operation's name.
        note: How names were matched, if they differ.
    """

    pairs: list[tuple[str, str]]
    made: Mapping[str, str]
    note: str | None


@dataclass(frozen=True)
class _Naming:
    """A way to match names: tensors with equal keys are partners."""

    keys: Mapping[str, str]
    note: str | None = None


def pair(a: Side, b: Side) -> Pairing:
    """Pair the tensors of two networks in the way that pairs most tensors of equal shape."""
    surgeries_a, surgeries_b = _surgeries(a), _surgeries(b)
    shared = 0
    for surgery_a, surgery_b in zip(surgeries_a, surgeries_b, strict=False):
        if surgery_a.operations != surgery_b.operations:
            break
        shared += 1
    made_by = {name: by for name in b.entries if (by := _traced_back(name, surgeries_b[shared:])[1])}
    origins = [_kept_names(side, all_[shared:]) for side, all_ in ((a, surgeries_a), (b, surgeries_b))]
    plain = [_Naming({name: name for name in side.entries}) for side in (a, b)]
    choices = [tuple(origins), tuple(plain)] if surgeries_a[shared:] or surgeries_b[shared:] else [tuple(plain)]
    best = max(choices, key=lambda choice: _fits(a, b, *choice))
    if _fits(a, b, *best) < min(len(a.entries), len(b.entries)):
        stripped = [(naming, best[1]) for naming in _without_prefix(best[0], "A")]
        stripped += [(best[0], naming) for naming in _without_prefix(best[1], "B")]
        best = max([best, *stripped], key=lambda choice: _fits(a, b, *choice))
    notes = [naming.note for naming in best if naming.note]
    return Pairing(_pairs(*best), made_by, "; ".join(notes) or None)


def _surgeries(side: Side) -> Sequence[Surgeries]:
    return side.record.surgeries if side.record is not None else []


def _traced_back(name: str, surgeries: Sequence[Surgeries]) -> tuple[str, str | None]:
    """Return the name of a tensor before ``surgeries``, or its first name and the operation that made it."""
    for recipe in reversed(surgeries):
        if name not in recipe.kept:
            return name, recipe.made.get(name)
        name = recipe.kept[name]
    return name, None


def _kept_names(side: Side, surgeries: Sequence[Surgeries]) -> _Naming:
    traced = {name: _traced_back(name, surgeries) for name in side.entries}
    kept_sources = {before for before, by in traced.values() if by is None}
    # a made tensor is paired with the tensor of its name, unless that one was kept under another name
    keys = {
        name: before if by is None or before not in kept_sources else f"{name}, made by {by}"
        for name, (before, by) in traced.items()
    }
    return _Naming(keys)


def _without_prefix(naming: _Naming, side: str) -> Iterator[_Naming]:
    """Yield namings without a prefix that most names share."""
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
    """Return the sites around a tensor, the innermost first, the whole network (``""``) last."""
    parts = name.split(".")[:-1]
    return [".".join(parts[:end]) for end in range(len(parts), -1, -1)]


class Names(nn.Module):
    """A module tree that follows the names of tensors in a file."""


def _tree(names: Mapping[str, Entry]) -> nn.Module:
    root = Names()
    for name in names:
        module: nn.Module = root
        for part in name.split(".")[:-1]:
            if part not in module._modules:
                module._modules[part] = Names()
            module = module._modules[part]  # type: ignore[assignment]
    return root
