"""Notice values that are written into a skeleton's tensors while an operation runs, where they would be lost.

Autograd counts the writes to each tensor. ``tensor.data`` is another tensor on the same memory with a count of its own,
so that those that code asks for are kept, and their counts added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

from surgeon.surgery.module_state import version

_READ = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_ASSIGN = torch.Tensor.data.__set__  # type: ignore[attr-defined]


class _DataWatch(TorchFunctionMode):
    """Keep what code gets as ``tensor.data``, and count what it assigns to it."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[int, list[tuple[torch.Tensor, torch.Tensor, int]]] = {}
        self.assigned: dict[int, int] = {}
        self._owners: dict[int, torch.Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == _ASSIGN and args[0].is_meta and _replaces(*args[:2]):
            owner = self._owners.get(id(args[0]), args[0])
            self.assigned[id(owner)] = self.assigned.get(id(owner), 0) + 1
        result = func(*args, **(kwargs or {}))
        if func == _READ and args[0].is_meta:
            owner = self._owners.get(id(args[0]), args[0])
            self._owners[id(result)] = owner
            self.views.setdefault(id(owner), []).append((owner, result, version(result)))
        return result


def _replaces(tensor: torch.Tensor, value: Any) -> bool:
    """Whether other values are assigned, rather than the same ones in another dtype, as by ``module.half()``."""
    if not isinstance(value, torch.Tensor) or value.dtype != tensor.dtype:
        return False
    return bool(value.untyped_storage()._cdata != tensor.untyped_storage()._cdata)


class Writes:
    """Count the writes to tensors since an operation began."""

    def __init__(self) -> None:
        self._watch = _DataWatch()
        self._before: dict[int, int] = {}

    def begin(self, tensors: Iterator[torch.Tensor]) -> None:
        """Start to count writes to ``tensors`` from here."""
        self._watch = _DataWatch()
        self._before = {id(tensor): version(tensor) for tensor in tensors}

    def follow(self, tensor: torch.Tensor) -> None:
        """Start to count writes to a new tensor from here; one that is followed already is followed on."""
        self._before.setdefault(id(tensor), self._count(tensor))

    def reached(self, tensor: torch.Tensor) -> bool:
        """Whether values were written into a tensor that is followed."""
        count = self._before.get(id(tensor))
        return count is not None and self._count(tensor) > count

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Follow what is written by way of ``tensor.data`` within the block."""
        with self._watch:
            yield

    def _count(self, tensor: torch.Tensor) -> int:
        views = self._watch.views.get(id(tensor), ())
        through_data = sum(version(view) - start for _, view, start in views)
        return version(tensor) + through_data + self._watch.assigned.get(id(tensor), 0)


@contextmanager
def unwatched() -> Iterator[None]:
    """Run a block of surgeon's own as it runs outside operations: some modules run otherwise under a function mode."""
    if isinstance(_get_current_function_mode(), _DataWatch):  # type: ignore[no-untyped-call]
        with _pop_mode_temporarily():
            yield
    else:
        yield
