"""The plugin manager: what ships with surgeon, what is installed beside it, and what ``--plugin`` names.

Importing this module does not create a manager: :func:`load` makes one, and its caller passes it on.
A plugin that is broken is put aside with its reason, and only what needs it fails.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from surgeon.errors import ArchitectureError, OperationError, PluginError, SurgeonError, TrainingError, suggest
from surgeon.interfaces import hooks as hookspecs
from surgeon.interfaces.checked_provider import CheckedProvider
from surgeon.interfaces.import_plugin import file_or_module, imported, one_line

if TYPE_CHECKING:
    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.offers import Named
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
KINDS: Mapping[str, str] = {
    "surgeon_operations": "operation",
    "surgeon_architectures": "architecture",
    "surgeon_losses": "loss",
    "surgeon_callbacks": "callback",
    "surgeon_sources": "source",
}
"""What is named by each hook that offers things by name."""
HOOKS = [name for name in vars(hookspecs) if name.startswith("surgeon_")]
PINNED = "SURGEON_PLUGINS"

T = TypeVar("T")


class Plugins:
    """The plugins of one run, and what they offer.

    A plugin that fails, when it is imported or in one of its hooks, is put aside with its reason; everything else
    goes on, and the built-in operations always work.

    Attributes:
        manager: The pluggy manager that they are registered with.
        failures: What failed, by the name of the plugin; filled as hooks are called.
        conflicts: Names that more than one plugin claims, with who claims them; filled as hooks are called.
        trusted: What the caller lets run beside plugins: modules and functions that recipes and manifests name.
        distributions: The distribution and version that each installed plugin came in, by the plugin's name.
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.failures: dict[str, PluginError] = {}
        self.conflicts: dict[str, PluginError] = {}
        self.trusted: frozenset[str] = frozenset()
        self.distributions: dict[str, tuple[str, str]] = {}
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
            raise PluginError(f"plugin {name!r} cannot be registered: {one_line(error)}") from error
        self._offers.clear()
        self.conflicts.clear()

    def operations(self) -> dict[str, type[Operation]]:
        """The operation classes by name, the built-in ones first."""
        return self._named("surgeon_operations", "operation")

    def architectures(self) -> dict[str, ArchitectureProvider]:
        """The providers of skeletons by scheme. Imports torch."""
        named = self._named("surgeon_architectures", "architecture")
        ours = BUILTINS["surgeon_architectures"]
        return {
            scheme: (provider if self._owners["architecture", scheme] == ours else CheckedProvider(provider)).trusting(
                self.trusted
            )
            for scheme, provider in named.items()
        }

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
        return self._named("surgeon_losses", "loss")

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """The callbacks of the Trainer by name. Imports transformers."""
        return self._named("surgeon_callbacks", "callback")

    def sources(self) -> dict[str, type[Source]]:
        """The sources of data by name, the built-in ones first."""
        return self._named("surgeon_sources", "source")

    def families(self) -> list[Family]:
        """Declared facts about families of networks: those of plugins first, so that they overrule ours."""
        offers = self._call("surgeon_families")
        ours = BUILTINS["surgeon_families"]
        ordered = [offer for plugin, offer in offers if plugin != ours] + [o for plugin, o in offers if plugin == ours]
        return [family for offer in ordered for _, family in offer]

    def operation(self, name: str, needed: Mapping[str, str] | None = None) -> type[Operation]:
        """The operation called ``name``; ``needed`` is what an artifact says of the plugins that it needs.

        Raises:
            OperationError: There is none, or it may be in a plugin that failed.
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
            Where each came from, by its kind and name: a distribution with its version,
            ``{"operation lora": "surgeon-lora 0.3"}``, or the file or module that ``--plugin`` named.
        """
        offers: dict[str, Mapping[str, type]] = {"operation": self.operations()}
        if "source" in used:
            offers["source"] = self.sources()
        return {
            f"{kind} {name}": self.origin(owner)
            for kind, classes in used.items()
            for name, offer in offers[kind].items()
            if offer in classes and (owner := self._owners[kind, name]) not in BUILTINS.values()
        }

    def origin(self, plugin: str) -> str:
        """Where a plugin comes from: its distribution with the version, else the name that it was loaded by."""
        return " ".join(self.distributions.get(plugin, (plugin,)))

    def hint(
        self, kind: str, name: str, offers: Iterable[str], *, see: str, needed: Mapping[str, str] | None = None
    ) -> str:
        """Say what to do where there is no ``name``: the nearest names, and the plugin that it may be in.

        Args:
            kind: What it should be: an operation, a source.
            name: The name that is missing.
            offers: The names that there are.
            see: The command that lists them.
            needed: What an artifact says of the plugins that it needs, as :meth:`foreign` gives it.
        """
        if origin := (needed or {}).get(f"{kind} {name}"):
            distribution, _, version = origin.rpartition(" ")
            if distribution and not origin.endswith(".py"):
                return f"it comes from {origin}: python -m pip install '{distribution}=={version}'"
            return f"it comes from the plugin {origin!r}, which is not loaded: name it with --plugin, or install it"
        hints = [suggest(name, offers, see=see) or ""]
        for plugin, error in self.failures.items():
            hints.append(f"it may be in the plugin {plugin!r}, which failed: {error.message} (see: surgeon plugins)")
        return "\n    ".join(hints)

    def add_to(self, *hooks: str) -> bool:
        """Whether a plugin that is not surgeon's own implements one of ``hooks``. Imports nothing."""
        implemented = [impl for hook in hooks for impl in getattr(self.manager.hook, hook).get_hookimpls()]
        return any(impl.plugin_name not in BUILTINS.values() for impl in implemented)

    def command_hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        """The plugins that add commands, each with its hook."""
        return list(self._implementations("surgeon_commands"))

    def fail(self, plugin: str, error: PluginError) -> None:
        """Put aside part of a plugin, with the reason; the first reason is kept."""
        self.failures.setdefault(plugin, error)

    def listing(self) -> list[tuple[str, list[str]]]:
        """Every plugin and the hooks that it implements, without importing what is not needed."""
        rows: dict[str, list[str]] = {}
        for hook, module in BUILTINS.items():
            rows.setdefault(module, []).append(hook)
        for name, plugin in self.manager.list_name_plugin():
            if name not in rows and plugin is not None:
                rows[name] = sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or [])
        return list(rows.items())

    def try_all(self) -> None:
        """Call every hook of the plugins that are not surgeon's own, so that what fails stands in :attr:`failures`."""
        if self.manager.list_name_plugin():
            for hook in BUILTINS:
                if self.add_to(hook):
                    self.families() if hook == "surgeon_families" else self._named(hook, KINDS[hook])

    def owner_of(self, error: BaseException) -> str | None:
        """Find the plugin in whose code ``error`` was raised, from its traceback."""
        owners = {}
        for name, plugin in self.manager.list_name_plugin():
            module = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
            if name not in BUILTINS.values():
                owners[module.partition(".")[0]] = name
        modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(error.__traceback__)]
        involved = [owners[top] for module in reversed(modules) if (top := module.partition(".")[0]) in owners]
        return involved[0] if involved else None

    def _implementations(self, hook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Plugins that implement ``hook``, ours first, then in order of registration (pluggy's is the reverse)."""
        ours = BUILTINS.get(hook)
        if ours and not self.manager.has_plugin(ours):
            self.manager.register(importlib.import_module(ours), ours)
        implemented = getattr(self.manager.hook, hook).get_hookimpls()
        for impl in sorted(implemented, key=lambda impl: impl.plugin_name != ours):
            yield impl.plugin_name, impl.function

    def _call(self, hook: str) -> list[tuple[str, Named]]:
        """What each plugin offers through ``hook``, checked and named; one that fails is put aside."""
        from surgeon.interfaces.offers import CHECKS  # imports pydantic, which `surgeon --version` does without

        offers = []
        for plugin, function in self._implementations(hook):
            try:
                offers.append((plugin, run_hook(self.origin(plugin), hook, lambda f=function: CHECKS[hook](f()))))  # type: ignore[misc]
            except PluginError as error:
                if plugin in BUILTINS.values():
                    raise
                self.fail(plugin, error)
        return offers

    def _named(self, hook: str, kind: str) -> dict[str, Any]:
        """What all plugins offer through ``hook``, by name.

        A name of ours stays ours, and one that two plugins claim is nobody's: :attr:`conflicts` says so.
        """
        if hook not in self._offers:
            offers: dict[str, Any] = {}
            owners: dict[str, list[str]] = {}
            for plugin, named in self._call(hook):
                for name, thing in named:
                    owners.setdefault(name, []).append(plugin)
                    offers.setdefault(name, thing)
            self._owners.update({(kind, name): plugins[0] for name, plugins in owners.items()})
            for name, plugins in owners.items():
                if len(plugins) > 1:
                    ours = plugins[0] == BUILTINS[hook]
                    if not ours:
                        del offers[name]
                    self.conflicts[f"{kind} {name}"] = PluginError(
                        f"{kind} {name!r} is claimed by {' and '.join(map(self.origin, plugins))}"
                        + ("; the built-in one is used" if ours else ""),
                        hint="rename the plugin's, or leave it out with --without NAME",
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


def load(
    extra: Sequence[str] = (), *, installed: bool = True, without: Sequence[str] = (), strict: bool = True
) -> Plugins:
    """Gather the plugins of a run.

    The environment variable ``SURGEON_PLUGINS`` pins which installed ones are loaded: their names, separated by
    commas; none if it is empty.

    Args:
        extra: Files (``tools/prune.py``) or modules (``mylab.surgery``), as ``--plugin`` names them.
        installed: Whether to load the packages installed with an entry point in the group ``surgeon``.
        without: Installed plugins to leave out, by their names or their distributions'.
        strict: Raise where one of ``extra`` cannot be loaded, rather than put it aside.

    Raises:
        PluginError: One of ``extra`` cannot be loaded, or ``without`` or ``SURGEON_PLUGINS`` names a plugin that is
            not installed. Installed ones that cannot be loaded go to ``failures`` instead.
    """
    plugins = Plugins()
    for entry in _chosen(without) if installed else ():
        if entry.dist is not None:
            plugins.distributions[entry.name] = (entry.dist.name, entry.dist.version)
        try:
            plugins.register(imported(plugins.origin(entry.name), entry.load), entry.name)
        except PluginError as error:
            plugins.fail(entry.name, error)
    for name in extra:
        try:
            plugins.register(imported(name, partial(file_or_module, name)), name)
        except PluginError as error:
            if strict:
                raise
            plugins.fail(name, error)
    return plugins


load_plugins = load
"""The public name of :func:`load`: ``surgeon.load`` loads a network."""


def _chosen(without: Sequence[str]) -> list[importlib.metadata.EntryPoint]:
    """The entry points of installed plugins, less those that are left out."""
    entries = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    names = {name for entry in entries for name in _names(entry)}
    pinned = os.environ.get(PINNED)
    wanted = None if pinned is None else [name.strip() for name in pinned.split(",") if name.strip()]
    for origin, listed in ((PINNED, wanted or ()), ("--without", without)):
        for name in listed:
            if name not in names:
                raise PluginError(
                    f"{origin} names the plugin {name!r}, which is not installed",
                    hint=suggest(name, names, see="surgeon plugins"),
                )
    return [
        entry
        for entry in entries
        if not _names(entry) & set(without) and (wanted is None or _names(entry) & set(wanted))
    ]


def _names(entry: importlib.metadata.EntryPoint) -> set[str]:
    """The names that a plugin goes by: its entry point's and its distribution's."""
    return {entry.name, entry.dist.name} if entry.dist is not None else {entry.name}


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


def run_hook(plugin: str, hook: str, call: Callable[[], T]) -> T:
    """Call a plugin's hook, so that whatever it raises names the plugin and the hook.

    Raises:
        PluginError: The hook raised.
    """
    try:
        return call()
    except PluginError as error:
        raise error.at(f"plugin {plugin!r}, {hook}") from error.__cause__
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PluginError(f"plugin {plugin!r} raised in {hook}: {reason}", hint="--debug shows where") from error
