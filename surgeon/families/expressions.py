"""Evaluate the shapes and ranges of declared arguments for a network, as specs of tensors to feed.

:class:`~surgeon.interfaces.family.Argument` defines the expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch

from surgeon.families.inputs import Spec
from surgeon.interfaces.family import Argument

Lookup = Callable[[tuple[str, ...]], int | None]
"""Returns the value of the first of several names that has one; None if none does."""

SIZES = {"tokens": 8, "samples": 8000, "frames": 64, "grid": 4}
"""Sizes that a config does not fix: tokens of a text, samples of audio (half a second at 16 kHz), frames of a
spectrogram, and rows and columns of patches. ``grid`` is a multiple of the number of patches that networks merge."""
DTYPES = {"float": None, "int64": torch.int64, "bool": torch.bool}


class UnknownNameError(Exception):
    """Raised when no name in a term of an expression has a value."""


def specs_of(arguments: Iterable[Argument], lookup: Lookup) -> list[Spec]:
    """Return the specs of those arguments that apply to the network, in order.

    Args:
        arguments: Alternatives for one argument of the forward.
        lookup: Returns the values of names.
    """
    specs = []
    for argument in arguments:
        try:
            if argument.where and not evaluate(argument.where, lookup):
                continue
            specs.append(_spec(argument, lookup))
        except UnknownNameError:
            continue
    return specs


def evaluate(expression: str, lookup: Lookup) -> int:
    """Evaluate an expression such as ``num_channels|3*patch_side|16+1``.

    ``|`` binds first, then ``*`` and ``//``, then ``+``.

    Raises:
        UnknownNameError: A name has no value.
    """
    return sum(_product(term, lookup) for term in expression.split("+"))


def _product(term: str, lookup: Lookup) -> int:
    first, *rest = re.split(r"(\*|//)", term)
    value = _first_known(first, lookup)
    for sign, factor in zip(rest[::2], rest[1::2], strict=True):
        number = _first_known(factor, lookup)
        value = value * number if sign == "*" else value // number
    return value


def _first_known(alternatives: str, lookup: Lookup) -> int:
    names = [name.strip() for name in alternatives.split("|")]
    value = lookup(tuple(name for name in names if not name.isdigit() and name not in SIZES))
    if value is not None:
        return value
    fixed = next((name for name in names if name.isdigit() or name in SIZES), None)
    if fixed is None:
        raise UnknownNameError(alternatives)
    return SIZES[fixed] if fixed in SIZES else int(fixed)


def _spec(argument: Argument, lookup: Lookup) -> Spec:
    first = [evaluate(part, lookup) for part in argument.first.split()]
    return Spec(
        tuple(evaluate(dim, lookup) for dim in argument.shape.split()),
        DTYPES[argument.dtype],
        evaluate(argument.low, lookup),
        evaluate(argument.high, lookup),
        last=_optional(argument.last, lookup),
        first=(first[0], first[1]) if first else None,
    )


def _optional(expression: str, lookup: Lookup) -> int | None:
    try:
        return evaluate(expression, lookup) if expression else None
    except UnknownNameError:
        return None
