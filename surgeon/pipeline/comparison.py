"""Compare two networks: tensors in only one, tensors of another form, and how far each tensor moved.

:func:`diff` opens both without reading weights, pairs their tensors (:mod:`surgeon.pipeline.tensor_pairs`) and reads
them in pieces (:mod:`surgeon.pipeline.movement`), so that memory use does not depend on the size of the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.contents import Entry
from surgeon.errors import CheckpointError, SiteError, name_nearest_option
from surgeon.pipeline.difference import Diff, GroupDiff, Status, TensorDiff, group
from surgeon.pipeline.movement import CHUNK, Movement, compare
from surgeon.pipeline.tensor_pairs import Side, ancestors, open_side, pair
from surgeon.plugins import Plugins, as_plugins
from surgeon.surgery.opened import Model, OpenOptions


@name_nearest_option
def diff(
    a: Model,
    b: Model,
    *,
    select: str | None = None,
    values: bool = True,
    progress: Callable[[int], None] | None = None,
    arch_a: str | None = None,
    arch_b: str | None = None,
    key_a: str | None = None,
    key_b: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> Diff:
    """Compare two networks: structure, training state, and how far each tensor moved.

    Tensors are read in pieces, so that memory use does not depend on the networks' size. Names are those of the
    networks if both are known, else those in the files. If one artifact was made from the other network, its manifest
    says which tensors correspond.

    Args:
        a: A path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory.
        b: The later one, in any of these forms.
        select: A selector: compare only tensors at or below its sites, in either network.
        values: False compares names, shapes, dtypes and training state only, and reads no weights.
        progress: Called with the number of bytes after each read of A and B.
        arch_a: What builds A, if A does not say.
        arch_b: What builds B, if B does not say.
        key_a: Which of several state dicts in A to use.
        key_b: Which of several state dicts in B to use.
        trust_pickle: Whether pickles in the files may run code.
        trust_code: Modules, named in a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        CheckpointError: A checkpoint is missing, damaged or unsafe, or has no values to compare.
        ArchitectureError: A network given by name cannot be built.
        SiteError: ``select`` matches nothing in either network.
    """
    plugins = with_trust(as_plugins(plugins), trust_code, a, b, arch_a, arch_b)
    side_a, side_b = (
        open_side(model, OpenOptions(arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins))
        for model, arch, key in ((a, arch_a, key_a), (b, arch_b, key_b))
    )
    for side in (side_a, side_b):
        if values and not side.values:
            raise CheckpointError(
                "it has no weights, so only its structure can be compared",
                where=side.location,
                hint="compare the structure only: --structure, or values=False in Python",
            )
    pairing = pair(side_a, side_b)
    chosen_a, chosen_b = _selected(side_a, side_b, select)
    partner = {name: of_a for of_a, name in pairing.pairs}
    tensors = []
    for name in side_b.entries:
        of_a = partner.get(name)
        if name not in chosen_b and of_a not in chosen_a:
            continue
        if of_a is not None or name not in side_a.filled:
            made_by = pairing.made.get(name)
            tensors.append(_tensor(side_a, side_b, of_a, name, made_by, values, progress or (lambda _: None)))
    paired = set(partner.values())
    unpaired = [
        name for name in side_a.entries if name not in paired and name not in side_b.filled and name in chosen_a
    ]
    tensors += [_tensor(side_a, side_b, name, None, None, values, lambda _: None) for name in unpaired]
    labels_a, labels_b = _Blocks(side_a.blocks()), _Blocks(side_b.blocks())
    notes = [f"{letter}: {note}" for letter, side in (("A", side_a), ("B", side_b)) for note in side.notes]
    return Diff(
        side_a.location,
        side_b.location,
        side_a.architecture,
        side_b.architecture,
        tuple(tensors),
        _groups(tensors, lambda t: (labels_a if t.status == "only in A" else labels_b).label(t.name)),
        _groups(tensors, lambda t: t.name.rpartition(".")[0] or "."),
        values,
        (*notes, *([pairing.note] if pairing.note else [])),
    )


def _selected(a: Side, b: Side, selector: str | None) -> tuple[set[str], set[str]]:
    if selector is None:
        return set(a.entries), set(b.entries)
    chosen: list[set[str]] = [set(), set()]
    with suppress(SiteError):
        chosen[0] = a.select(selector)
    try:
        chosen[1] = b.select(selector)
    except SiteError:
        if not chosen[0]:
            raise
    if not any(chosen):
        raise SiteError(f"{selector!r} matches no tensors", hint="see: surgeon inspect MODEL --select SELECTOR")
    return chosen[0], chosen[1]


def _tensor(
    a: Side,
    b: Side,
    name_a: str | None,
    name_b: str | None,
    made_by: str | None,
    values: bool,
    read: Callable[[int], None],
) -> TensorDiff:
    entry_a = a.entries[name_a] if name_a is not None else None
    entry_b = b.entries[name_b] if name_b is not None else None
    movement: Movement | None = None
    status: Status
    if entry_b is None:
        status = "only in A"
    elif entry_a is None:
        status = "only in B"
    elif entry_a.shape != entry_b.shape:
        status = "other shape"
    elif not values:
        status = "not compared" if entry_a.dtype == entry_b.dtype else "other dtype"
    else:
        assert name_a is not None
        assert name_b is not None
        same, movement = compare(a.chunks(name_a, CHUNK), b.chunks(name_b, CHUNK))
        status = "other dtype" if entry_a.dtype != entry_b.dtype else "same" if same else "moved"
        read(entry_a.nbytes + entry_b.nbytes)
    return TensorDiff(
        name_b or name_a or "",
        status,
        name_a,
        entry_a.shape if entry_a is not None else None,
        entry_b.shape if entry_b is not None else None,
        _dtype(entry_a),
        _dtype(entry_b),
        _is_frozen(a, name_a),
        _is_frozen(b, name_b),
        made_by,
        movement,
        _is_parameter(b, name_b, entry_b) if entry_b is not None else _is_parameter(a, name_a, entry_a),
    )


def _dtype(entry: Entry | None) -> str | None:
    return str(entry.dtype).removeprefix("torch.") if entry is not None else None


def _is_frozen(side: Side, name: str | None) -> bool | None:
    return None if name is None or side.frozen is None else name in side.frozen


def _is_parameter(side: Side, name: str | None, entry: Entry | None) -> bool:
    if side.parameters is not None:
        return name in side.parameters
    return entry is not None and entry.dtype.is_floating_point


class _Blocks:
    """Name the block of a tensor, or the part of the network if it is in no block."""

    def __init__(self, sites: Iterable[str]) -> None:
        self.sites = set(sites)
        self.around = {above for site in self.sites for above in ancestors(site)}

    def label(self, name: str) -> str:
        path = list(reversed(ancestors(name)))
        block = next((site for site in path if site in self.sites), None)
        return block or next((site for site in path if site not in self.around and site), path[-1] or ".")


def _groups(tensors: Iterable[TensorDiff], label: Callable[[TensorDiff], str]) -> tuple[GroupDiff, ...]:
    groups: dict[str, list[TensorDiff]] = {}
    for tensor in tensors:
        groups.setdefault(label(tensor), []).append(tensor)
    return tuple(group(name, tuple(members)) for name, members in groups.items())
