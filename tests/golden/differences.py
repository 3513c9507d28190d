"""Compare two records and name every fact that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose
from typing import Any

SAME_BUILD = (1e-4, 1e-5)
"""How far figures may be apart, relative and absolute, where only the number of threads may differ."""
OTHER_BUILD = (1e-2, 2e-3)
"""The same for other builds of torch and other CPUs, which sum in another order."""


def differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """The facts in which ``actual`` differs from ``expected``, one line each.

    The hash of a new or derived tensor counts only on the build of torch and the kind of CPU that it was recorded on;
    its figures count anywhere.
    """
    same_build = expected["environment"] == actual["environment"]
    return [
        line
        for part in expected
        if part != "environment"
        for line in _compare(part, expected[part], actual[part], same_build)
    ]


def _compare(path: str, expected: Any, actual: Any, same_build: bool) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        shared = [key for key in expected if key in actual]
        yield from (f"- {path}[{key}]: {_brief(value)}" for key, value in expected.items() if key not in actual)
        yield from (f"+ {path}[{key}]: {_brief(value)}" for key, value in actual.items() if key not in expected)
        for key in shared:
            if same_build or key != "hash":
                yield from _compare(f"{path}[{key}]", expected[key], actual[key], same_build)
        order = [key for key in actual if key in expected]
        if order != shared:
            yield f"~ {path}: the order was {_brief(shared)}, is {_brief(order)}"
    elif isinstance(expected, list) and isinstance(actual, list):
        if all(isinstance(item, str) for item in [*expected, *actual]) and expected != actual:
            yield from (f"- {path}: {item!r}" for item in expected if item not in actual)
            yield from (f"+ {path}: {item!r}" for item in actual if item not in expected)
            if sorted(expected) == sorted(actual):
                yield f"~ {path}: the order was {_brief(expected)}, is {_brief(actual)}"
        elif len(expected) != len(actual):
            yield f"~ {path}: was {_brief(expected)}, is {_brief(actual)}"
        else:
            for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
                yield from _compare(f"{path}[{index}]", one, other, same_build)
    elif not _equal(expected, actual, *(SAME_BUILD if same_build else OTHER_BUILD)):
        yield f"~ {path}: was {_brief(expected)}, is {_brief(actual)}"


def _equal(expected: Any, actual: Any, relative: float, absolute: float) -> bool:
    if isinstance(expected, float) and isinstance(actual, float):
        return isclose(expected, actual, rel_tol=relative, abs_tol=absolute)
    return type(expected) is type(actual) and bool(expected == actual)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
