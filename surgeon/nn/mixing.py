"""Mix behaviour into a network's class.

A mixed class keeps every module name: a wrapper would add a prefix to all of them, and ``isinstance`` would fail.
Instances can be deep-copied and pickled.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, cast

from torch import nn


def mixed(mixin: type[Mixin], base: type) -> type:
    """Make the class ``mixin`` + ``base``; the same arguments return the same class."""
    mixed_class: type = _mixed(cast("Any", mixin), base)
    return mixed_class


@cache
def _mixed(mixin: Any, base: Any) -> Any:
    mixed_class = mixin.mix(base)
    mixed_class.mixed_from = (mixin, base)
    return mixed_class


def base_of(cls: type) -> type:
    """Return the class that ``cls`` was mixed from, or ``cls`` itself if nothing was mixed into it."""
    base: type = cls.__dict__.get("mixed_from", (None, cls))[1]
    return base


def blank(mixin: type[Mixin], base: type) -> nn.Module:
    """Make an instance without state, for copy and pickle to fill."""
    cls: Any = mixed(mixin, base)
    instance: nn.Module = cls.__new__(cls)
    return instance


class Mixin:
    """Let instances of mixed classes be deep-copied and pickled; the base of mixins.

    Attributes:
        mixed_from: The mixin and the class that it was mixed into; set on every mixed class.
    """

    mixed_from: ClassVar[tuple[type[Mixin], type]]

    @classmethod
    def mix(cls, base: type) -> type:
        """Make the class for :func:`mixed`."""
        return type(f"{cls.__name__}{base.__name__}", (cls, base), {"__module__": cls.__module__})

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return blank, type(self).mixed_from, self.__dict__
