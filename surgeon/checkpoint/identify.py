"""How a checkpoint fits a skeleton, and which architecture a checkpoint belongs to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from surgeon.checkpoint.formats import Checkpoint
from surgeon.checkpoint.providers.base import ArchitectureProvider
from surgeon.errors import ArchitectureError
from surgeon.graph.skeleton import build_skeleton
from surgeon.record import Architecture

# A file with fewer of a network's tensors than this share is taken for something else.
COVERAGE = 0.25

# BatchNorm's counter: absent from files older than torch 0.4.1 and from those of torchvision's detectors,
# whose networks count no batches. It plays no part in a forward unless momentum is None.
COUNTER = re.compile(r"(^|\.)num_batches_tracked$")


@dataclass
class Fit:
    """The tensors of a skeleton set against those of a file."""

    mapping: dict[str, str] = field(default_factory=dict)
    """Skeleton name → name of the entry in the file; a tied name maps to its twin's entry."""
    missing: list[str] = field(default_factory=list)
    """Skeleton names for which the file has nothing."""
    unexpected: list[str] = field(default_factory=list)
    """Entries of the file that the skeleton has no place for."""
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    """Skeleton name → (its shape, the file's)."""
    filled: list[str] = field(default_factory=list)
    """Counters absent from the file, to be filled with 0."""
    dropped: list[str] = field(default_factory=list)
    """Entries of the file that are known to be superfluous."""

    @property
    def cost(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)

    @property
    def contained(self) -> bool:
        """True when every tensor of the file has its place, and there are enough of them."""
        wanted = len(self.mapping) + len(self.missing)
        return not self.unexpected and not self.misshaped and len(self.mapping) >= COVERAGE * wanted

    def counts(self) -> str:
        """``3 missing, 1 unexpected``; ``fits`` when nothing is wrong."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshaped}
        return ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names) or "fits"

    def notes(self) -> list[str]:
        """What a person should know of the entries that do not correspond one to one."""
        notes = []
        if self.filled:
            notes.append(f"{len(self.filled)} num_batches_tracked absent from the file: filled with 0")
        if self.dropped:
            notes.append(f"{len(self.dropped)} tensors of the file have no place and are left out: {few(self.dropped)}")
        return notes


@dataclass
class Match:
    """An architecture for a checkpoint, and how the two fit."""

    architecture: Architecture
    checkpoint: Checkpoint
    """The checkpoint with wrappers' prefixes stripped, so that ``fit.mapping`` names its entries."""
    skeleton: nn.Module
    fit: Fit
    notes: list[str] = field(default_factory=list)


def few(names: Iterable[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def shapes_of(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shape of every entry."""
    return {name: tuple(entry.shape) for name, entry in checkpoint.entries.items()}


def build(provider: ArchitectureProvider, architecture: Architecture) -> nn.Module:
    """The skeleton of ``architecture``.

    Raises:
        ArchitectureError: It cannot be built.
    """
    try:
        return build_skeleton(lambda: provider.build(architecture))
    except RuntimeError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArchitectureError(f"cannot be built: {reason}", where=str(architecture)) from error


def fit(
    skeleton: nn.Module,
    checkpoint: Checkpoint,
    naming: Mapping[str, str],
    harmless: re.Pattern[str] | None = None,
) -> Fit:
    """Set the tensors of ``skeleton`` against the entries of ``checkpoint``.

    Args:
        skeleton: The network.
        checkpoint: The file.
        naming: Name in the file → name in the skeleton.
        harmless: Names in the file that need no place.
    """
    result = Fit()
    tensors = skeleton.state_dict(keep_vars=True)
    entries: dict[str, str] = {}
    for name in checkpoint.entries:
        entries.setdefault(naming[name], name)
    twins: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        twins.setdefault(id(tensor), []).append(name)
    for name, tensor in tensors.items():
        source = next((entries[twin] for twin in [name, *twins[id(tensor)]] if twin in entries), None)
        if source is None:
            # state_dict lists a norm's statistics before its counter: where those came, it can be filled.
            statistics = f"{name.removesuffix('num_batches_tracked')}running_mean"
            filled = COUNTER.search(name) and statistics in result.mapping
            (result.filled if filled else result.missing).append(name)
            continue
        result.mapping[name] = source
        have, want = tuple(checkpoint.entries[source].shape), tuple(tensor.shape)
        if have != want:
            result.misshaped[name] = (want, have)
    for name in checkpoint.entries:
        if naming[name] not in tensors or entries[naming[name]] != name:
            spare = COUNTER.search(name) or name in checkpoint.aliases or (harmless and harmless.search(naming[name]))
            (result.dropped if spare else result.unexpected).append(name)
    return result


def unprefixed(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """``checkpoint`` as it is, then without each prefix that a wrapper may have left."""
    yield checkpoint
    for prefix in checkpoint.prefix_candidates():
        if prefix:
            yield checkpoint.without_prefix(prefix)


def match(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> Match:
    """Fit ``checkpoint`` to a named architecture: the form, prefix and naming that leave least over.

    Raises:
        ArchitectureError: It does not fit; the message counts and names the tensors.
    """
    best = _best(provider, architecture, checkpoint)
    if not best.fit.contained:
        converted = provider.convert(best.skeleton, checkpoint)
        if converted is not None:
            best = _best(provider, best.architecture, converted)
    if not best.fit.contained:
        raise misfit(best)
    return best


def _best(provider: ArchitectureProvider, architecture: Architecture, checkpoint: Checkpoint) -> Match:
    best: Match | None = None
    skeletons: dict[str, nn.Module] = {}
    for candidate in unprefixed(checkpoint):
        for form in provider.complete(architecture, candidate):
            key = form.model_dump_json()
            if key not in skeletons:
                skeletons[key] = build(provider, form)
            skeleton = skeletons[key]
            for naming in provider.namings(skeleton, candidate.entries):
                result = fit(skeleton, candidate, naming, provider.harmless(skeleton))
                if best is None or result.cost < best.fit.cost:
                    best = Match(form, candidate, skeleton, result, naming_notes(naming))
                if result.cost == 0:
                    return best
    assert best is not None  # there is always the checkpoint as it is, one form and one naming
    return best


def naming_notes(naming: Mapping[str, str]) -> list[str]:
    """Says that names of the file were read as others."""
    renamed = [(old, new) for old, new in naming.items() if old != new]
    if not renamed:
        return []
    old, new = renamed[0]
    return [f"{len(renamed)} tensors renamed, such as {old} → {new}"]


def misfit(found: Match) -> ArchitectureError:
    """The error for a checkpoint that does not fit the architecture it was said to have."""
    result = found.fit
    parts = []
    if result.missing:
        parts.append(f"{len(result.missing)} missing ({few(result.missing)})")
    if result.unexpected:
        parts.append(f"{len(result.unexpected)} unexpected ({few(result.unexpected)})")
    if result.misshaped:
        shown = [f"{name} is {have}, not {want}" for name, (want, have) in result.misshaped.items()]
        parts.append(f"{len(shown)} of another shape ({few(shown, 2)})")
    if found.architecture.scheme == "torchvision":
        hint = "leave --arch out to have the architecture identified"
    else:
        hint = f"name what made this file, or build {found.architecture} with the options that fit it"
    return ArchitectureError(
        f"does not fit {found.architecture}: {len(result.mapping) - len(result.misshaped)} of "
        f"{len(result.mapping) + len(result.missing)} tensors match, " + ", ".join(parts),
        where=found.checkpoint.location,
        hint=hint,
    )


def identify(checkpoint: Checkpoint, providers: Mapping[str, ArchitectureProvider]) -> Match:
    """Ask every provider which architecture ``checkpoint`` belongs to.

    Raises:
        ArchitectureError: None knows it; the closest candidates are named.
    """
    refused: ArchitectureError | None = None
    for scheme in sorted(providers):
        try:
            found = providers[scheme].identify(checkpoint)
        except ArchitectureError as error:
            refused = refused or error
            continue
        if found is not None:
            return found
    raise refused or ArchitectureError(
        f"the architecture of these {len(checkpoint.entries)} tensors is unknown ({few(checkpoint.entries)})",
        where=checkpoint.location,
        hint="say what built it: --arch torchvision/NAME, --arch hf:ORG/NAME or --arch python:package.module:function",
    )


# State that a forward or a training loop leaves on modules: it says nothing of how they were built.
_TRANSIENT = frozenset({"training", "gradient_checkpointing", "name_or_path", "max_seq_len_cached", "warnings_issued"})


def same_structure(module: nn.Module, skeleton: nn.Module, *, mutable: Collection[str] = ()) -> bool:
    """True when two trees have the same classes, tensors, ties and settings; values are not compared.

    Args:
        module: One of them.
        skeleton: The other.
        mutable: Settings that a forward may have changed, and that say nothing.
    """
    mine, other = (dict(tree.named_modules(remove_duplicate=False)) for tree in (module, skeleton))
    if mine.keys() != other.keys() or _tensors(module) != _tensors(skeleton):
        return False
    return all(
        _class_name(mine[name]) == _class_name(other[name])
        and mine[name].extra_repr() == other[name].extra_repr()
        and _settings(mine[name], mutable) == _settings(other[name], mutable)
        for name in mine
    )


def _class_name(module: nn.Module) -> str:
    # By name: torch's parametrize gives every module that it touches a class of its own.
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _tensors(module: nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and first name (equal for tied tensors) of every entry of the state dict."""
    first: dict[int, str] = {}
    return {
        name: (tuple(tensor.shape), first.setdefault(id(tensor), name))
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


def _settings(module: nn.Module, mutable: Collection[str]) -> dict[str, Any]:
    """The plain values that a module is set to, without those that it works out itself when they are asked for."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _TRANSIENT
        and name not in mutable
        and _is_plain(value)
        and not isinstance(getattr(type(module), name, None), cached_property)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, (bool, int, float, str))
