"""Defer the import of rarely used parts of libraries until one of their attributes is read.

``import torchvision`` and every model of transformers import torch's compiler (a thousand modules) only to mark a few
functions for it, and transformers imports scipy's optimisers for the losses of detectors. A process that neither
compiles
nor trains needs neither. One that does gets the real module at the first attribute that it reads.

Use it only in a process that surgeon controls: functions marked before the compiler is loaded stay unmarked.

``python tests/benchmarks/lazy_imports.py --rounds 7`` measures what an entry saves in ``surgeon plan``; an entry stays
only if it saves at least 0.2 s. Medians of CPU seconds (torch 2.14, scipy 1.17, two cores under load). The two entries
of
torch work only as a pair, since importing ``torch._dynamo.utils`` imports its package:

=====================================  ======================  ==================
deferred                               torchvision SqueezeNet  transformers Llama
=====================================  ======================  ==================
nothing                                3.14                    4.56
torch._dynamo                          3.18 (saves nothing)    4.70 (nothing)
torch._dynamo and torch._dynamo.utils  2.49 (0.65)             4.17 (0.39)
scipy.optimize                         3.18 (not imported)     4.31 (0.26)
all three                              2.34 (0.80)             3.81 (0.76)
=====================================  ======================  ==================

The placeholders have the names that these libraries read from the modules during import. A library newer than
:data:`NEWEST` may read others, so it is not deferred: commands then start later and do the same.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from threading import RLock
from types import ModuleType
from typing import Any

NEWEST = {"torch": (2, 14), "scipy": (1, 17)}
"""The newest release of each library that passes ``tests/cli/startup``."""


def defer() -> None:
    """Defer the modules in :data:`DEFERRED` that are not imported yet.

    Modules of a library that is newer than in :data:`NEWEST`, or has no version, are imported as usual.
    """
    names = frozenset(name for name in DEFERRED if is_tried(name.partition(".")[0]))
    if names and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(names))


def is_tried(library: str) -> bool:
    """Return whether the placeholders were tested with the installed release of ``library``."""
    try:
        release = re.match(r"(\d+)\.(\d+)", version(library))
    except PackageNotFoundError:
        return False
    return release is not None and (int(release[1]), int(release[2])) <= NEWEST[library]


def _mark(function: Any = None, *_: Any, **__: Any) -> Any:
    """Stand in for a decorator, with or without arguments, whose mark only the compiler reads."""
    return _mark if function is None else function


def _forward(module: Deferred, name: str) -> Callable[..., Any]:
    """Return a function that loads ``module`` when it is called."""

    def later(*args: Any, **kwargs: Any) -> Any:
        _load(module)
        return getattr(module, name)(*args, **kwargs)

    later.__name__ = later.__qualname__ = name
    return later


DEFERRED: Mapping[str, Mapping[str, Callable[[Deferred], Any]]] = {
    "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), lambda _: _mark),
    "torch._dynamo.utils": {"is_compile_supported": lambda module: _forward(module, "is_compile_supported")},
    "scipy.optimize": {"linear_sum_assignment": lambda module: _forward(module, "linear_sum_assignment")},
}
"""The deferred modules, and the attributes that they have without being loaded."""

ALONE = frozenset({"torch._dynamo.utils", "torch._dynamo._trace_wrapped_higher_order_op"})
"""Submodules that are imported without their package: they are deferred too, or do not use it."""


class Deferred(ModuleType):
    """A module whose code runs when a missing attribute is read; the object stays the same."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect and others look these up on all modules
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return getattr(self, name)


def _load(module: ModuleType) -> None:
    """Run the code of a deferred module once, after its package's, as in any import."""
    with _LOCK:
        package = sys.modules.get(module.__name__.rpartition(".")[0])
        if package is not None:
            _load_one(package)
        _load_one(module)


def _load_one(module: ModuleType) -> None:
    if type(module) is not Deferred:
        return
    # the real module from here on: other modules may import it and read missing attributes while its code runs
    module.__class__ = ModuleType  # type: ignore[assignment]
    spec = module.__spec__
    assert spec is not None
    assert isinstance(spec.loader, _Later)
    module.__loader__ = spec.loader = spec.loader.real
    for name in DEFERRED[module.__name__]:
        delattr(module, name)
    spec.loader.exec_module(module)


class _Finder(MetaPathFinder):
    """Find the deferred modules, and load their package when another part of it is imported."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(package, Deferred) and fullname not in ALONE:
            _load(package)
            if loaded := sys.modules.get(fullname):
                return ModuleSpec(fullname, _Loaded(loaded))
        if fullname not in self.names or (package is not None and fullname in ALONE and type(package) is ModuleType):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    """Make a module without running its code."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> Deferred:
        return Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, Deferred)
        vars(module).update({name: make(module) for name, make in DEFERRED[module.__name__].items()})


class _Loaded(Loader):
    """Return a module that was imported while its package was loading."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


_LOCK = RLock()
