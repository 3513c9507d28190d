"""Classes made by mixing behaviour into a network's own class.

A class of its own is what lets every name in the tree stay as it was: a wrapper would put a prefix before
each of them, and ``isinstance`` would no longer hold. Instances deepcopy and pickle.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn


def mixed(mixin: type, base: type) -> type:
    """The class ``mixin`` + ``base``, the same one each time it is asked for."""
    made: type = _mixed(mixin, base)
    return made


@cache
def _mixed(mixin: Any, base: Any) -> Any:
    name, bases = f"{mixin.__name__}{base.__name__}", (mixin, base)
    return type(name, bases, {"__module__": mixin.__module__})


def blank(mixin: type, base: type) -> nn.Module:
    """An instance without state, for copy and pickle to fill."""
    cls: Any = mixed(mixin, base)
    instance: nn.Module = cls.__new__(cls)
    return instance


class Mixin:
    """A base for mixins: it makes instances of the mixed classes deepcopy and pickle."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        mixin, base = type(self).__bases__
        return blank, (mixin, base), self.__dict__
