"""Identify which torchvision builder made the tensors of a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from surgeon.architectures.fingerprints import Keys, Row, is_twin, table
from surgeon.architectures.fit import fit, naming_notes, shapes_of
from surgeon.architectures.identify import UnrecognisedError, build, unprefixed
from surgeon.architectures.torchvision_names import REPLACED, readings, unseen
from surgeon.architectures.torchvision_variants import COLOURS, Trunk, read_head, trunks
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match, few

if TYPE_CHECKING:
    from surgeon.checkpoint.formats import Checkpoint

FEW = 8
"""The most tensors that may differ in a network that counts as similar to a torchvision network: stem and head."""

MOST = 5000
"""Files with more tensors are of no builder (EfficientNetV2-L has 1,548): each would be compared with them in vain."""


def identify(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match | None:
    """Find the builder that made the tensors of ``checkpoint``; None if they resemble no builder's.

    Digests come first: only the network that they identify is built, to confirm it. If none matches, networks with
    another head, another first convolution or numbered names are tried. Last, every builder with similar top-level
    modules is built and compared key by key.

    Raises:
        ArchitectureError: Several fit, or none does; the closest are named with their missing tensors.
    """
    if len(checkpoint.entries) > MOST:
        return None
    exact = _exact(provider, checkpoint)
    if _cost(exact) == 0:
        return _only(exact, checkpoint)
    variants = _variants(provider, checkpoint)
    names = {match.architecture.name for match in exact}
    # a head without a bias does not fit torchvision's variant, but does fit the network as it was built
    same = [match for match in variants if match.architecture.name in names]
    if matches := min(exact, same, key=_cost) if exact else variants:
        return _only(matches, checkpoint)
    return _closest(provider, checkpoint)


def _exact(provider: ArchitectureProvider, checkpoint: Checkpoint) -> list[Match]:
    """Match networks by the digest of all keys, ignoring class counts, or of the keys without a head."""
    for candidate in unprefixed(checkpoint):
        for naming in readings(candidate.entries):
            shapes = {naming[name]: shape for name, shape in shapes_of(candidate).items()}
            keys = Keys(shapes)
            for test in (Row.has_trunk_of, Row.has_body_of):
                matches = [_match(provider, row, candidate, naming) for row in table() if test(row, keys)]
                if contained := [match for match in matches if match.fit.contained]:
                    return contained
    return []


def _cost(matches: list[Match]) -> float:
    return min((match.fit.cost for match in matches), default=inf)


def _suggest_key(checkpoint: Checkpoint, fitting: int) -> None:
    """Refuse a file with a network beside other parts, such as a decoder, and suggest ``--key``.

    Args:
        checkpoint: The file.
        fitting: How many tensors fit the closest builder. A torchvision segmentation network must not be read as its
            backbone, which is dilated there.

    Raises:
        ArchitectureError: The file has such a part.
    """
    for prefix in checkpoint.prefix_candidates():
        stripped = checkpoint.without_prefix(prefix)
        for part, size in Counter(name.partition(".")[0] for name in stripped.entries if "." in name).items():
            if not fitting < size < len(stripped.entries):
                continue
            name = _name_of(stripped.without_prefix(f"{part}."))
            if name is not None:
                rest = [name for name in stripped.entries if not name.startswith(f"{part}.")]
                raise ArchitectureError(
                    f"{size} of its {len(checkpoint.entries)} tensors, under '{prefix}{part}', are torchvision/{name}; "
                    f"{len(rest)} beside them are not ({few(rest)})",
                    where=checkpoint.location,
                    hint=f"--key {prefix}{part} reads that network only, with torchvision's strides and pooling; "
                    "for all of it give the architecture: --arch python:package.module:function",
                )


def _name_of(checkpoint: Checkpoint) -> str | None:
    keys = Keys(shapes_of(checkpoint))
    exact = (row.name for row in table() if row.has_trunk_of(keys) or row.has_body_of(keys))
    return next(exact, None) or next((trunk.row.name for trunk in trunks(checkpoint)), None)


def _variants(provider: ArchitectureProvider, checkpoint: Checkpoint) -> list[Match]:
    """Match networks with visible changes; return the best matches for the first prefix that fits."""
    for candidate in unprefixed(checkpoint):
        matches = [match for trunk in trunks(candidate) if (match := _varied(provider, trunk, candidate)).fit.contained]
        if matches:
            return [match for match in matches if match.fit.cost == _cost(matches)]
    return []


def _varied(provider: ArchitectureProvider, trunk: Trunk, checkpoint: Checkpoint) -> Match:
    """Match a file with a network that has the same trunk, with its head rebuilt or left out."""
    stock = _match(provider, trunk.row, checkpoint, trunk.naming).skeleton
    shapes = {trunk.naming[name]: shape for name, shape in shapes_of(checkpoint).items()}
    head = read_head(stock, trunk.row.heads, shapes, set(trunk.row.children.split()))
    naming = {name: head.renamed.get(new, new) for name, new in trunk.naming.items() if new not in head.left_out}
    entries = {name: entry for name, entry in checkpoint.entries.items() if name in naming}
    renamed_checkpoint = replace(checkpoint, entries=entries)
    replaced = {**trunk.replaced, **head.replaced}
    match = _match(provider, trunk.row, renamed_checkpoint, naming, {REPLACED: replaced} if replaced else {})
    match.notes.extend([*trunk.notes, *head.notes])
    match.changed = True
    return match


def _match(
    provider: ArchitectureProvider,
    row: Row,
    checkpoint: Checkpoint,
    naming: dict[str, str],
    extra: dict[str, Any] | None = None,
) -> Match:
    shapes = {naming[name]: shape for name, shape in shapes_of(checkpoint).items()}
    options = {**row.options, **(row.read_options(shapes) or {}), **(extra or {})}
    plain = Architecture(scheme=provider.scheme, name=row.name, options=options)
    form = next(f for f in provider.complete(plain, checkpoint) if row.options.items() <= f.options.items())
    skeleton = build(provider, form)
    return Match(form, checkpoint, skeleton, fit(skeleton, checkpoint, naming), naming_notes(naming))


def _only(matches: list[Match], checkpoint: Checkpoint) -> Match:
    """Return the only match, or the plain one of twins.

    Raises:
        ArchitectureError: Different networks fit equally well.
    """
    fewest: dict[str, Match] = {}
    for match in matches:
        name = match.architecture.name
        if name not in fewest or match.fit.cost < fewest[name].fit.cost:
            fewest[name] = match
    first, *rest = fewest.values()
    keys = {name: tensor.shape for name, tensor in first.skeleton.state_dict().items()}
    twins: list[str] = []
    different: list[str] = []
    for twin in rest:
        same = {name: tensor.shape for name, tensor in twin.skeleton.state_dict().items()} == keys
        (twins if same else different).append(twin.architecture.name)
    if different:
        several = sorted(fewest.values(), key=lambda match: match.fit.cost)
        raise ArchitectureError(
            f"its {len(checkpoint.entries)} tensors fit {len(fewest)} networks: " + _listed(several),
            where=checkpoint.location,
            hint=f"choose one: --arch {several[0].architecture}",
        )
    first.notes.insert(0, f"identified as {first.architecture} from its keys and shapes")
    if twins:
        first.notes.insert(1, f"{' and '.join(twins)} has the same tensors; the plain one is used")
    first.notes.extend(unseen(first.architecture))
    return first


def _closest(provider: ArchitectureProvider, checkpoint: Checkpoint) -> Match | None:
    compared: list[Match] = []
    for candidate in unprefixed(checkpoint):
        *_, naming = readings(candidate.entries)
        shapes = {naming[name]: shape for name, shape in shapes_of(candidate).items()}
        tops = Keys(shapes).tops
        for row in table():
            if len(tops & set(row.children.split())) * 2 >= len(tops) and not is_twin(row.name):
                compared.append(_match(provider, row, candidate, naming))
    contained = [match for match in compared if match.fit.contained]
    if contained:
        return _only(contained, checkpoint)
    compared = [match for match in compared if len(match.fit.mapping) > len(match.fit.misshaped)]
    best = sorted(compared, key=lambda match: match.fit.cost)
    fitting = [len(match.fit.mapping) + len(match.fit.filled) - len(match.fit.misshaped) for match in best]
    _suggest_key(checkpoint, max(fitting, default=0))
    if not best:
        return None
    _refuse_kernel(best[0], checkpoint)
    raise UnrecognisedError(
        f"the architecture of these {len(checkpoint.entries)} tensors is unknown; closest: {_listed(best)}",
        where=checkpoint.location,
        hint=f"give the architecture: --arch {best[0].architecture} or --arch python:package.module:function",
    )


def _refuse_kernel(match: Match, checkpoint: Checkpoint) -> None:
    """Refuse a network whose first convolution has another kernel size, and say what is unknown then.

    Raises:
        ArchitectureError: Nothing else differs in the trunk.
    """
    for name, (want, have) in match.fit.misshaped.items():
        if len(want) >= 4 and want[1] == COLOURS and want[2:] != have[2:] and match.fit.cost <= FEW:
            old, new = ("×".join(map(str, shape[2:])) for shape in (want, have))
            raise ArchitectureError(
                f"resembles {match.architecture}, but its first convolution {name.removesuffix('.weight')} is {new}, "
                f"not {old}: its tensors do not show its stride and padding, or whether pooling follows it",
                where=checkpoint.location,
                hint="write a function that builds the network and give --arch python:package.module:function",
            )


def _listed(matches: list[Match]) -> str:
    return few((f"{match.architecture.name} ({match.fit.counts()})" for match in matches), 4)
