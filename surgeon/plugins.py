"""The plugin manager: what ships with surgeon, what is installed beside it, and what ``--plugin`` names.

Nobody owns a manager by importing this module: :func:`load` makes one, and whoever called it hands it on.
A plugin that is broken is put aside with its reason, and only what needs it fails.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from surgeon.errors import ArchitectureError, OperationError, PluginError, SurgeonError, TrainingError, suggest
from surgeon.interfaces import hooks as hookspecs

if TYPE_CHECKING:
    import typer

    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.operation import Operation

GROUP = "surgeon"

# Imported when their hook is first called: listing operations must not import torch, and these others do.
BUILTINS: Mapping[str, str] = {
    "surgeon_operations": "surgeon.operations",
    "surgeon_architectures": "surgeon.architectures.registry",
    "surgeon_families": "surgeon.families.registry",
    "surgeon_losses": "surgeon.training.losses",
    "surgeon_callbacks": "surgeon.training.stopping",
    "surgeon_sources": "surgeon.data.sources",
}
HOOKS = [name for name in vars(hookspecs) if name.startswith("surgeon_")]

T = TypeVar("T")


class Plugins:
    """The plugins of one run, and what they offer.

    Attributes:
        manager: The pluggy manager that they are registered with.
        failures: Plugins that could not be loaded, by name.
        conflicts: Names that more than one plugin claims, with who claims them; filled as hooks are called.
        trusted: What the caller lets run beside plugins: modules and functions that recipes and manifests name.
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.failures: dict[str, PluginError] = {}
        self.conflicts: dict[str, PluginError] = {}
        self.trusted: frozenset[str] = frozenset()
        self._offers: dict[str, dict[str, Any]] = {}
        self._owners: dict[tuple[str, str], str] = {}

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin: a module or object whose hooks are marked with ``surgeon.hookimpl``.

        Raises:
            PluginError: It implements a hook that does not exist, or with arguments that the hook has not.
        """
        _check_hooks(plugin, name)
        try:
            self.manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            raise PluginError(f"plugin {name!r} cannot be registered: {_one_line(error)}") from error
        self._offers.clear()
        self.conflicts.clear()

    def operations(self) -> dict[str, type[Operation]]:
        """The operation classes by name, the built-in ones first."""
        return self._named("surgeon_operations", "operation", lambda offer: [(o.name, o) for o in offer])

    def architectures(self) -> dict[str, ArchitectureProvider]:
        """The providers of skeletons by scheme. Imports torch."""
        named = self._named("surgeon_architectures", "architecture", lambda offer: [(p.scheme, p) for p in offer])
        return {scheme: provider.trusting(self.trusted) for scheme, provider in named.items()}

    def trusting(self, names: Iterable[str]) -> Plugins:
        """The same plugins for a caller who lets further code run.

        Args:
            names: Modules, as ``package.module``, or single functions, as ``package.module:function``.
        """
        plugins = copy(self)  # what has been gathered of plugins is shared
        plugins.trusted = self.trusted.union(names)
        return plugins

    def losses(self) -> dict[str, Callable[..., Any]]:
        """The losses by name. Imports torch."""
        return self._named("surgeon_losses", "loss", lambda offer: list(offer.items()))

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """The callbacks of the Trainer by name. Imports transformers."""
        return self._named("surgeon_callbacks", "callback", lambda offer: list(offer.items()))

    def sources(self) -> dict[str, type[Source]]:
        """The sources of data by name, the built-in ones first."""
        from surgeon.interfaces.data import source_name

        return self._named("surgeon_sources", "source", lambda offer: [(source_name(kind), kind) for kind in offer])

    def families(self) -> list[Family]:
        """Declared facts about families of networks: those of plugins first, so that they overrule ours."""
        offers = [list(offer) for _, offer in self._call("surgeon_families")]
        return [family for offer in [*offers[1:], *offers[:1]] for family in offer]

    def operation(self, name: str, needed: Mapping[str, str] | None = None) -> type[Operation]:
        """The operation called ``name``; ``needed`` is what an artifact says of the plugins that it needs.

        Raises:
            OperationError: There is none, or it may be in a plugin that failed to load.
            PluginError: More than one plugin claims the name.
        """
        return self._one("operation", name, self.operations(), OperationError, "surgeon ops", needed)

    def architecture(self, scheme: str) -> ArchitectureProvider:
        """The provider for ``scheme``; raises as :meth:`operation` does, with ArchitectureError."""
        return self._one("architecture", scheme, self.architectures(), ArchitectureError, "surgeon plugins")

    def loss(self, name: str) -> Callable[..., Any]:
        """The loss called ``name``; raises as :meth:`operation` does, with TrainingError."""
        return self._one("loss", name, self.losses(), TrainingError, "surgeon plugins")

    def foreign(self, used: Mapping[str, Iterable[type]]) -> dict[str, str]:
        """Of the classes ``used``, by kind (operation, source), those that are not surgeon's own.

        Returns:
            The plugin that each came from, by its kind and name: ``{"source scans": "scans.py"}``.
        """
        offers: dict[str, Mapping[str, type]] = {"operation": self.operations()}
        if "source" in used:
            offers["source"] = self.sources()
        return {
            f"{kind} {name}": owner
            for kind, classes in used.items()
            for name, offer in offers[kind].items()
            if offer in classes and (owner := self._owners[kind, name]) not in BUILTINS.values()
        }

    def hint(
        self, kind: str, name: str, offers: Iterable[str], *, see: str, needed: Mapping[str, str] | None = None
    ) -> str:
        """What to do where there is no ``name``: the nearest ones, and the plugin that it may be in.

        Args:
            kind: What it should be: an operation, a source.
            name: What was asked for.
            offers: What there is.
            see: The command that lists it.
            needed: What an artifact says of the plugins that it needs, as :meth:`foreign` gives it.
        """
        if owner := (needed or {}).get(f"{kind} {name}"):
            return f"it came from the plugin {owner!r}, which is not here: install it, or name it with --plugin"
        hints = [suggest(name, offers, see=see) or ""]
        if self.failures:
            hints.append(
                f"it may be in a plugin that failed to load: {', '.join(self.failures)} (see: surgeon plugins)"
            )
        return "\n    ".join(hints)

    def add_to(self, *hooks: str) -> bool:
        """Whether a plugin that is not surgeon's own implements one of ``hooks``. Imports nothing."""
        found = [each for hook in hooks for each in getattr(self.manager.hook, hook).get_hookimpls()]
        return any(each.plugin_name not in BUILTINS.values() for each in found)

    def add_commands(self, app: typer.Typer) -> list[PluginError]:
        """Let plugins add commands to ``app``; returns the errors of those that failed to."""
        errors = []
        for plugin, function in self._implementations("surgeon_commands"):
            try:
                _run(plugin, "surgeon_commands", partial(function, app))
            except PluginError as error:
                errors.append(error)
        return errors

    def listing(self) -> list[tuple[str, list[str]]]:
        """Every plugin and the hooks that it implements, without importing what is not needed."""
        rows: dict[str, list[str]] = {}
        for hook, module in BUILTINS.items():
            rows.setdefault(module, []).append(hook)
        for name, plugin in self.manager.list_name_plugin():
            if name not in rows and plugin is not None:
                rows[name] = sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or [])
        return list(rows.items())

    def owner_of(self, error: BaseException) -> str | None:
        """The plugin in whose code ``error`` was raised, as far as its traceback tells."""
        owners = {}
        for name, plugin in self.manager.list_name_plugin():
            module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
            if name not in BUILTINS.values():
                owners[module.partition(".")[0]] = name
        modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
        found = [owners[top] for module in reversed(modules) if (top := module.partition(".")[0]) in owners]
        return found[0] if found else None

    def _implementations(self, hook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Plugins that implement ``hook``, ours first, then in order of registration (pluggy's is the reverse)."""
        ours = BUILTINS.get(hook)
        if ours and not self.manager.has_plugin(ours):
            self.manager.register(importlib.import_module(ours), ours)
        found = getattr(self.manager.hook, hook).get_hookimpls()
        for each in sorted(found, key=lambda each: each.plugin_name != ours):
            yield each.plugin_name, each.function

    def _call(self, hook: str) -> list[tuple[str, Any]]:
        return [(plugin, _run(plugin, hook, function)) for plugin, function in self._implementations(hook)]

    def _named(self, hook: str, kind: str, items: Callable[[Any], list[tuple[str, T]]]) -> dict[str, T]:
        """What all plugins offer through ``hook``, by name; a contested name is nobody's."""
        if hook not in self._offers:
            offers: dict[str, T] = {}
            owners: dict[str, list[str]] = {}
            for plugin, offer in self._call(hook):
                for name, thing in _run(plugin, hook, partial(items, offer)):
                    owners.setdefault(name, []).append(plugin)
                    offers[name] = thing
            self._owners.update({(kind, name): plugins[0] for name, plugins in owners.items()})
            for name, plugins in owners.items():
                if len(plugins) > 1:
                    del offers[name]
                    self.conflicts[f"{kind} {name}"] = PluginError(
                        f"{kind} {name!r} is claimed by {len(plugins)} plugins: {' and '.join(plugins)}",
                        hint="uninstall one of them, or leave its --plugin out",
                    )
            self._offers[hook] = offers
        return dict(self._offers[hook])

    def _one(
        self,
        kind: str,
        name: str,
        offers: Mapping[str, T],
        error: type[SurgeonError],
        see: str,
        needed: Mapping[str, str] | None = None,
    ) -> T:
        if name in offers:
            return offers[name]
        if conflict := self.conflicts.get(f"{kind} {name}"):
            raise conflict
        raise error(f"unknown {kind} {name!r}", hint=self.hint(kind, name, offers, see=see, needed=needed))


def load(extra: Sequence[str] = (), *, installed: bool = True) -> Plugins:
    """Gather the plugins of a run.

    Args:
        extra: Files (``tools/prune.py``) or modules (``mylab.surgery``), as ``--plugin`` names them.
        installed: Whether to load the packages installed with an entry point in the group ``surgeon``.

    Raises:
        PluginError: One of ``extra`` cannot be loaded. Installed ones that cannot go to ``failures`` instead.
    """
    plugins = Plugins()
    entries = importlib.metadata.entry_points(group=GROUP) if installed else ()
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.value)):
        try:
            plugins.register(_imported(entry.name, entry.load), entry.name)
        except PluginError as error:
            plugins.failures[entry.name] = error
    for name in extra:
        plugins.register(_imported(name, partial(_file_or_module, name)), name)
    return plugins


def _imported(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise PluginError(f"plugin {name!r} cannot be imported: {reason}") from error


def _file_or_module(name: str) -> ModuleType:
    path = Path(name)
    if path.suffix != ".py":
        if "/" in name or path.is_dir():
            raise PluginError(f"plugin {name!r} is neither a .py file nor the dotted name of a module")
        return importlib.import_module(name)
    if not path.is_file():
        raise PluginError(f"plugin {name!r}: no such file")
    # A name of its own for each file: pydantic looks a class's module up by name to resolve its annotations.
    unique = f"surgeon_plugin_{path.stem}_{zlib.crc32(bytes(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {name!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def _check_hooks(plugin: object, name: str) -> None:
    """Refuse a hook that surgeon would never call: pluggy alone passes both mistakes over in silence."""
    for key in dir(plugin):
        if not key.startswith("surgeon_") or not callable(function := getattr(plugin, key, None)):
            continue
        if key not in HOOKS:
            hint = suggest(key, HOOKS) or f"the hooks are {', '.join(HOOKS)}"
            raise PluginError(f"plugin {name!r} implements {key!r}, which is not a hook", hint=hint)
        if not hasattr(function, f"{hookspecs.PROJECT}_impl"):
            raise PluginError(
                f"plugin {name!r} defines {key!r} without marking it", hint=f"put @surgeon.hookimpl before def {key}"
            )


def _run(plugin: str, hook: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except SurgeonError as error:
        raise error.at(f"plugin {plugin!r}, {hook}") from error.__cause__
    except Exception as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise PluginError(f"plugin {plugin!r} raised in {hook}: {reason}", hint="--debug shows where") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
