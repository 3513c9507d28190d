"""Describe the networks of a provider by digests of their tensors, so that a file is identified without building all.

A library with hundreds of networks stores the table once, as a JSON file in its package::

    table = fingerprint_table(provider, vary={"classes": 7})
    Path("table.json").write_text(json.dumps(table))

and narrows down with it: ``identify_by(provider, checkpoint, table=table)`` builds only what the digest names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from surgeon.architectures.fingerprints import Keys
from surgeon.architectures.fit import shapes_of
from surgeon.architectures.identify import build
from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider, Shapes
from surgeon.interfaces.architecture_name import Architecture

Table = Mapping[str, Mapping[str, Any]]
"""By name of a network: ``digest`` of the tensors that no option changes, ``free`` (option → tensor → the dimension
that it sets, and the factor), and ``defaults`` of the options."""


def fingerprint_table(
    provider: ArchitectureProvider, names: Iterable[str] | None = None, *, vary: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """Describe the networks of a provider for :func:`identify_by`, by skeletons, which take no memory.

    Args:
        provider: The provider.
        names: The networks. Default: each of ``provider.names()``.
        vary: Options that count something, such as classes or channels, each with another value than its default. The
            tensors that it changes are left out of the digest, and later say which value a file was made with.

    Returns:
        The table, which is JSON-able.

    Raises:
        ArchitectureError: A network cannot be built, or an option changes a shape in another way than by its count.
    """
    return {name: _row(provider, name, vary or {}) for name in (provider.names() if names is None else names)}


def candidates_of(table: Table, provider: ArchitectureProvider, checkpoint: Checkpoint) -> Iterator[Architecture]:
    """Yield the networks of a table whose tensors a checkpoint may hold, with the options that its shapes tell."""
    shapes = shapes_of(checkpoint)
    keys = Keys(shapes)
    for name, row in table.items():
        free: Mapping[str, Mapping[str, Sequence[int]]] = row["free"]
        if f"{keys.without({key for shaped in free.values() for key in shaped}):016x}" != row["digest"]:
            continue
        options = {option: _count(shapes, shaped) for option, shaped in free.items()}
        overrides = {option: n for option, n in options.items() if n is not None and n != row["defaults"].get(option)}
        yield Architecture(scheme=provider.scheme, name=name, options=overrides)


def _row(provider: ArchitectureProvider, name: str, vary: Mapping[str, int]) -> dict[str, Any]:
    plain = Architecture(scheme=provider.scheme, name=name)
    shapes = _shapes(provider, plain)
    free: dict[str, dict[str, tuple[int, int]]] = {}
    for option, value in vary.items():
        probe = plain.model_copy(update={"options": {option: value}})
        free[option] = dict(_changes(shapes, _shapes(provider, probe), f"{probe} with {option}={value}", value))
        if not free[option]:
            raise ArchitectureError(
                f"{option}={value} changes no shape", where=str(plain), hint="vary by a value that is not the default"
            )
    changing = {key for shaped in free.values() for key in shaped}
    return {
        "digest": f"{Keys(shapes).without(changing):016x}",
        "free": {option: {key: list(how) for key, how in shaped.items()} for option, shaped in free.items()},
        "defaults": {option: _count(shapes, shaped) for option, shaped in free.items()},
    }


def _shapes(provider: ArchitectureProvider, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in build(provider, architecture).state_dict().items()}


def _changes(before: Shapes, after: Shapes, where: str, value: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the tensors that an option changes, each with the dimension and the factor of the option's value."""
    if before.keys() != after.keys():
        raise ArchitectureError("the option adds or removes tensors, so that it is not only a count", where=where)
    for key, shape in before.items():
        changed = [d for d, size in enumerate(after[key]) if len(after[key]) != len(shape) or size != shape[d]]
        if not changed:
            continue
        size = after[key][changed[0]]
        if len(changed) > 1 or len(after[key]) != len(shape) or size % value:
            raise ArchitectureError(f"the option changes {key} from {shape} to {after[key]}, no multiple", where=where)
        yield key, (changed[0], size // value)


def _count(shapes: Shapes, shaped: Mapping[str, Sequence[int]]) -> int | None:
    """Return the value of an option that the shapes tell; None if they disagree."""
    counts = set()
    for key, (dimension, factor) in shaped.items():
        if key in shapes and dimension < len(shapes[key]):
            size = shapes[key][dimension]
            counts.add(size // factor if size % factor == 0 else None)
    return counts.pop() if len(counts) == 1 else None
