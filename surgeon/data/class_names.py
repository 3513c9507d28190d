"""Number classes by the names in the network's head, so that data and network agree."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from surgeon.data.network import CLASS_LOSS, Head
from surgeon.errors import TrainingError

Kind = Literal["text", "bool", "whole", "real", "list"]
"""The content of a label column: names, True and False, whole numbers, other numbers, lists of numbers."""
SHOWN = 12


@dataclass(frozen=True)
class Levels:
    """The values of one source in a label column.

    Attributes:
        kind: The kind of values.
        names: The values as names, in natural order or, if the dataset numbers them, in its order.
        trained: Whether the source's labels are used in training; sources only for testing follow the others' numbers.
        where: The name of the source in messages.
    """

    kind: Kind
    names: tuple[str, ...]
    trained: bool
    where: str


@dataclass(frozen=True)
class Numbering:
    """The mapping from values of a label column to class numbers.

    Attributes:
        names: The classes in order; empty if there are no names.
        by_name: Whether to look up values among the names; otherwise whole numbers are class numbers.
        notes: Remarks for the user.
    """

    names: tuple[str, ...] = ()
    by_name: bool = False
    notes: tuple[str, ...] = ()

    def positions(self, names: Sequence[str], label: str, where: str) -> list[int]:
        """Return the class numbers of ``names``.

        Raises:
            TrainingError: A name is not a class in training.
        """
        place = {name: number for number, name in enumerate(self.names)}
        if unknown := [name for name in names if name not in place]:
            raise TrainingError(
                f"{where} has classes of {label!r} that are not in training: {listed(unknown)}",
                where="train.data",
                hint=f"available: {listed(self.names)}",
            )
        return [place[name] for name in names]


def natural(names: Iterable[str]) -> list[str]:
    """Sort ``names`` as a person counts: 1, 2, …, 11; a2 before a10; letters by code point."""

    def key(name: str) -> tuple[Any, ...]:
        integer = re.fullmatch(r"-?\d+", name)
        # every second part is of digits; "²" and "①" are digits to str.isdigit, but no numerals
        parts = tuple(
            (0, int(part), "") if place % 2 else (1, 0, part) for place, part in enumerate(re.split(r"(\d+)", name))
        )
        return (0, int(name), ()) if integer else (1, 0, parts)

    return sorted(sorted(names), key=key)


def listed(names: Sequence[str]) -> str:
    """Join ``names`` for a message, quoting those with spaces at either end and those in an unusual Unicode form."""
    quoted = [_quoted(name) for name in names[:SHOWN]]
    return ", ".join(quoted) + (f", … ({len(names)} in total)" if len(names) > SHOWN else "")


def _quoted(name: str) -> str:
    if unicodedata.normalize("NFC", name) != name:
        return ascii(name)  # otherwise it looks like another name
    return repr(name) if name != name.strip() or not name else name


def almost_equal(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only in case, spaces or Unicode form."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        key = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        groups.setdefault(key, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def in_yaml(names: Sequence[str]) -> str:
    """Format ``names`` as a list for a recipe, or return their number if there are many."""
    if len(names) > SHOWN:
        return str(len(names))
    plain = re.compile(r"(?!(?i:true|false|null|yes|no|on|off)$)[^\W\d][\w-]*( [\w-]+)*")
    return f"[{', '.join(name if plain.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)}]"


def differing(label: str, head: Sequence[str], data: Sequence[str]) -> TrainingError:
    """Return the error for different classes in head and data."""
    only_head = [name for name in head if name not in data]
    only_data = [name for name in data if name not in head]
    hint = f"add a head for the data's classes: replace_head: classes: {in_yaml(data)}"
    if alike := almost_equal([*head, *data]):
        hint = f"{listed(alike[0])} differ only in case, spaces or Unicode form: write them alike in the data"
    return TrainingError(
        f"the classes of the head and those of {label!r} differ: only in the head: {listed(only_head) or 'none'}; "
        f"only in the data: {listed(only_data) or 'none'}",
        where="train.data",
        hint=hint,
    )


def number_classes(label: str, sources: Sequence[Levels], head: Head) -> Numbering:
    """Decide how the values of ``label`` become numbers; see :func:`_number`. Names that look alike are noted."""
    numbering = _number(label, sources, head)
    alike = almost_equal(numbering.names) if numbering.by_name else []
    lines = [f"{label}: {listed(group)} are different classes, by case, spaces or Unicode form only" for group in alike]
    return replace(numbering, notes=(*numbering.notes, *lines))


def _number(label: str, sources: Sequence[Levels], head: Head) -> Numbering:
    """Decide how the values of ``label`` become numbers.

    If the head has names, the data must have the same ones, in any order; the error lists both. If the head has only a
    number of classes, the data's names are used, in natural order. Whole numbers are class numbers from 0 on, unless
    the head's names are numerals. If they are out of range (1 … N) but as many as the head's classes, they are names.

    Raises:
        TrainingError: The head's classes differ from those of the data.
    """
    kinds = {source.kind for source in sources if source.names}
    if "text" in kinds and kinds & {"whole", "real"}:
        raise TrainingError(f"{label!r} holds texts in one source and numbers in another", where="train.data")
    if kinds & {"real", "list"}:
        return Numbering()
    named = bool(kinds & {"text", "bool"})
    if head.loss not in (CLASS_LOSS, None):
        answers = _union(sources)
        if head.loss == "bce" and len(head.names) == 2 and set(answers) <= set(head.names):
            answers = list(head.names)  # the names of its training, even if the data have only one of them
        return _questions(label, answers, head.loss) if "text" in kinds else Numbering()
    trained = [source for source in sources if source.trained]
    data = _union(trained or sources)
    if head.names:
        if not named and not all(re.fullmatch(r"-?\d+", name) for name in head.names):
            return Numbering(head.names)  # whole numbers are positions in the head's list
        exact = bool(trained) and not head.partial
        if not set(data) <= set(head.names) or (exact and set(data) != set(head.names)):
            raise differing(label, head.names, data)
        return Numbering(head.names, by_name=True)
    if named:
        if trained and head.count is not None and len(data) != head.count:
            raise TrainingError(
                f"the head has {head.count} classes, and {label!r} has {len(data)}: {listed(data)}",
                where="train.data",
                hint=f"add a head that fits: replace_head: classes: {len(data)}",
            )
        return Numbering(tuple(data), by_name=True)
    if head.count is None or all(0 <= int(name) < head.count for name in data):
        return Numbering()
    if len(data) == head.count:
        text = f"{label}: the classes {listed(data)} are numbered 0 to {head.count - 1} in this order"
        return Numbering(tuple(data), by_name=True, notes=(text,))
    raise TrainingError(
        f"the head has {head.count} classes, and {label!r} holds the whole numbers {listed(data)}",
        where="train.data",
        hint="classes are counted from 0 on; use a head with more classes, or declare which numbers "
        "mark a missing label: na: [-1]",
    )


def numbered_by(target: str, level: Levels, head: Head) -> Numbering:
    """Return how labels become the network's class numbers: by its names, never by the data's order.

    Raises:
        TrainingError: A class is not the network's, or the network has no names for named classes.
    """
    if level.kind in ("real", "list") or not level.names or head.loss not in (CLASS_LOSS, "bce", None):
        return Numbering()
    if head.names:
        if set(level.names) <= set(head.names):
            return Numbering(head.names, by_name=True)
        numerals = any(name.lstrip("-").isdigit() for name in head.names)
        if level.kind == "whole" and not numerals:
            return Numbering(head.names)  # whole numbers are indices into the list of names
        if level.kind == "bool" and head.loss == "bce":
            return Numbering()
        error = differing(target, head.names, level.names)
        error.hint = "leave out samples of other classes, or rename their classes"
        raise error
    if level.kind == "text":
        raise TrainingError(
            f"the data have the named classes {listed(level.names)} of {target!r}, but the network has no class names "
            "to match them with",
            hint="give the names in the order of the network's outputs: classes=[…], or --classes a,b,c",
        )
    return Numbering(level.names, by_name=True) if level.kind == "bool" and head.loss != "bce" else Numbering()


def order_columns(label: str, columns: Sequence[str], head: Head) -> list[str]:
    """Return the columns of a vector in the order of the head's outputs.

    Raises:
        TrainingError: They are yes/no questions, and the head has other names for them.
    """
    if head.names and set(head.names) == set(columns):
        return list(head.names)
    if head.names and head.loss == "bce":
        raise differing(label, head.names, columns)
    return list(columns)


def _union(sources: Sequence[Levels]) -> list[str]:
    orders = list(dict.fromkeys(source.names for source in sources if source.names))
    return list(orders[0]) if len(orders) == 1 else natural({name for order in orders for name in order})


def _questions(label: str, names: Sequence[str], loss: str | None) -> Numbering:
    if loss != "bce" or len(names) > 2:
        raise TrainingError(
            f"{label!r} holds texts ({listed(names)}), and {loss} compares numbers", where="train.objectives"
        )
    text = f"{label}: {' and '.join(f'{name} is {number}' for number, name in enumerate(names))}"
    return Numbering(tuple(names), by_name=True, notes=(text,))
