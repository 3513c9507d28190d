"""Manage plugins: the built-in ones, the installed ones, and those of ``--plugin``.

Importing this module does not create a manager: :func:`load` makes one, and its caller passes it on. A broken plugin is
disabled and its error recorded, so only what needs it fails.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from surgeon.errors import ArchitectureError, OperationError, PluginError, SurgeonError, TrainingError, suggest
from surgeon.interfaces import hooks as hookspecs
from surgeon.interfaces.catalog_cache import fingerprint, recalled, remember
from surgeon.interfaces.distribution import DISTRIBUTION, surgeon_version
from surgeon.interfaces.entry_points import chosen
from surgeon.interfaces.import_plugin import HOOKS, check_hooks, file_or_module, imported, one_line, run_hook
from surgeon.interfaces.missing_plugin import hint_about_missing, plugin_in_traceback
from surgeon.interfaces.registered import registered_plugins

if TYPE_CHECKING:
    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.offers import Named
    from surgeon.interfaces.operation import Operation

# imported when the hook is first called: listing operations must not import torch, which other modules import
BUILTINS: Mapping[str, str] = {
    "surgeon_operations": "surgeon.operations",
    "surgeon_architectures": "surgeon.architectures.registry",
    "surgeon_families": "surgeon.families.registry",
    "surgeon_losses": "surgeon.training.losses",
    "surgeon_callbacks": "surgeon.training.early_stopping",
    "surgeon_schedules": "surgeon.training.schedules",
    "surgeon_metrics": "surgeon.training.further_metrics",
    "surgeon_sources": "surgeon.data.sources",
}
KINDS: Mapping[str, str] = {
    "surgeon_operations": "operation",
    "surgeon_architectures": "architecture",
    "surgeon_losses": "loss",
    "surgeon_callbacks": "callback",
    "surgeon_schedules": "schedule",
    "surgeon_metrics": "metric",
    "surgeon_sources": "source",
}
"""The kind of thing that each hook offers by name."""

T = TypeVar("T")


class Plugins:
    """Hold the plugins of one run and what they offer.

    A plugin that fails on import or in a hook is disabled and its error recorded. The others and the built-in
    operations keep working.

    Attributes:
        manager: The pluggy manager.
        failures: Errors by plugin name; filled as hooks are called.
        conflicts: Names that several plugins claim, with an error that lists them; filled as hooks are called.
        trusted: Modules and functions, named in recipes or manifests, that the caller allows to run.
        distributions: The distribution and version of each installed plugin, by plugin name.
        fingerprints: What identifies the installed files of each plugin; None if they may change at any time.
        compared: Recorded and installed versions that differ and that a warning has named.
    """

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.failures: dict[str, PluginError] = {}
        self.conflicts: dict[str, PluginError] = {}
        self.trusted: frozenset[str] = frozenset()
        self.distributions: dict[str, tuple[str, str]] = {}
        self.compared: set[tuple[str, str]] = set()
        self.fingerprints: dict[str, str | None] = {}
        self._deferred: dict[str, tuple[EntryPoint, list[str]]] = {}
        self._order: list[str] = []
        self._offers: dict[str, dict[str, Any]] = {}
        self._owners: dict[tuple[str, str], str] = {}

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin: a module or object whose hooks are marked with ``surgeon.hookimpl``.

        Raises:
            PluginError: The plugin implements an unknown hook, or a hook with wrong arguments.
        """
        self._add(plugin, name)
        self._order.append(name)
        self._offers.clear()
        self.conflicts.clear()

    def defer(self, entry: EntryPoint) -> None:
        """Add an installed plugin, and import it only when one of its hooks is called, if its hooks are remembered."""
        name = entry.name
        if entry.dist is not None:
            self.distributions[name] = (entry.dist.name, entry.dist.version)
        key = self.fingerprints[name] = fingerprint(entry)
        hooks = recalled(key) if key else None
        self._order.append(name)
        self._deferred[name] = (entry, HOOKS if hooks is None else hooks)
        if hooks is None and self._import(name) and key:
            remember(key, self._hooks_of(name))

    def _import(self, name: str) -> bool:
        """Import a deferred plugin; if it fails, record the error."""
        entry, _ = self._deferred.pop(name)
        try:
            plugin = imported(self.origin(name), entry.load)
            self._add(plugin, name)
        except PluginError as error:
            self.fail(name, error)
            return False
        return True

    def _add(self, plugin: object, name: str) -> None:
        check_hooks(plugin, self.origin(name))
        try:
            self.manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            raise PluginError(f"plugin {self.origin(name)!r} cannot be registered: {one_line(error)}") from error

    def _hooks_of(self, name: str) -> list[str]:
        plugin = self.manager.get_plugin(name)
        return sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or [])

    def operations(self) -> dict[str, type[Operation]]:
        """Return the operation classes by name, the built-in ones first."""
        return self._named("surgeon_operations", "operation")

    def architectures(self) -> dict[str, ArchitectureProvider]:
        """Return the architecture providers by scheme. Imports torch."""
        from surgeon.interfaces.checked_provider import CheckedProvider  # imports pydantic

        named = self._named("surgeon_architectures", "architecture")
        builtin = BUILTINS["surgeon_architectures"]
        return {
            scheme: (
                provider if self._owners["architecture", scheme] == builtin else CheckedProvider(provider)
            ).trusting(self.trusted)
            for scheme, provider in named.items()
        }

    def trusting(self, names: Iterable[str]) -> Plugins:
        """Return the same plugins with more trusted code.

        Args:
            names: Modules, as ``package.module``, or single functions, as ``package.module:function``.
        """
        plugins = copy(self)  # a shallow copy: registered plugins are shared
        plugins.trusted = self.trusted.union(names)
        return plugins

    def losses(self) -> dict[str, Callable[..., Any]]:
        """Return the losses by name. Imports torch."""
        return self._named("surgeon_losses", "loss")

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """Return the Trainer callbacks by name. Imports transformers."""
        return self._named("surgeon_callbacks", "callback")

    def schedules(self) -> dict[str, Callable[..., float]]:
        """Return the curves of schedules by name. Imports torch."""
        return self._named("surgeon_schedules", "schedule")

    def metrics(self) -> dict[str, Callable[..., float]]:
        """Return the metrics that a recipe may add, by name. Imports torch."""
        return self._named("surgeon_metrics", "metric")

    def sources(self) -> dict[str, type[Source]]:
        """Return the data sources by name, the built-in ones first."""
        return self._named("surgeon_sources", "source")

    def families(self) -> list[Family]:
        """Return the declared families of networks, those of plugins first so that they take precedence."""
        offers = self._call("surgeon_families")
        builtin = BUILTINS["surgeon_families"]
        ordered = [offer for plugin, offer in offers if plugin != builtin] + [
            o for plugin, o in offers if plugin == builtin
        ]
        return [family for offer in ordered for _, family in offer]

    def operation(self, name: str, needed: Mapping[str, str] | None = None) -> type[Operation]:
        """Return the operation ``name``; ``needed`` lists the plugins that an artifact records.

        Raises:
            OperationError: No loaded plugin has it.
            PluginError: More than one plugin claims the name.
        """
        return self._one("operation", name, self.operations(), OperationError, "surgeon ops", needed)

    def architecture(self, scheme: str) -> ArchitectureProvider:
        """Return the provider for ``scheme``; raises like :meth:`operation`, with ArchitectureError."""
        return self._one("architecture", scheme, self.architectures(), ArchitectureError, "surgeon plugins")

    def loss(self, name: str) -> Callable[..., Any]:
        """Return the loss ``name``; raises like :meth:`operation`, with TrainingError."""
        return self._one("loss", name, self.losses(), TrainingError, "surgeon plugins")

    def has(self, kind: str, name: str) -> bool:
        """Return whether an operation, loss, or other ``kind`` of :data:`KINDS` has the name ``name``."""
        return name in self._named(next(hook for hook, offered in KINDS.items() if offered == kind), kind)

    def maker(self, kind: str, name: str) -> str:
        """Return the origin of what a plugin offers under a name; empty for what is surgeon's own, or unknown."""
        owner = self._owners[kind, name] if self.has(kind, name) else ""
        return self.origin(owner) if owner and owner not in BUILTINS.values() else ""

    def distribution(self, operation: type[Operation]) -> tuple[str, str]:
        """The distribution of an operation, and its version; empty texts for what is not installed as one."""
        if self.operations().get(operation.name) is not operation:
            return "", ""
        owner = self._owners["operation", operation.name]
        own_distribution = (DISTRIBUTION, surgeon_version() or "")
        return own_distribution if owner in BUILTINS.values() else self.distributions.get(owner, ("", ""))

    def origin(self, plugin: str) -> str:
        """Return a plugin's distribution and version, or else the name that it was loaded by."""
        return " ".join(self.distributions.get(plugin, (plugin,)))

    def hint(
        self, kind: str, name: str, offers: Iterable[str], *, see: str, needed: Mapping[str, str] | None = None
    ) -> str:
        """Suggest what to do about a missing ``name``; see :func:`hint_about_missing`. ``see`` is a command."""
        named = {plugin: names for plugin, (names, _) in self.distributions.items()}
        return hint_about_missing(kind, name, suggest(name, offers, see=see), (needed or {}), self.failures, named)

    def add_to(self, *hooks: str) -> bool:
        """Return whether a plugin other than the built-in ones implements one of ``hooks``. Imports nothing."""
        return bool(self.adding(*hooks))

    def adding(self, *hooks: str) -> list[str]:
        """List the plugins other than the built-in ones that implement one of ``hooks``. Imports nothing."""
        implemented = [impl.plugin_name for hook in hooks for impl in getattr(self.manager.hook, hook).get_hookimpls()]
        later = [name for name, (_, hooks_of_plugin) in self._deferred.items() if set(hooks) & set(hooks_of_plugin)]
        return sorted({*implemented, *later} - set(BUILTINS.values()))

    def command_hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return the plugins that add commands, each with its hook."""
        return list(self._implementations("surgeon_commands"))

    def fail(self, plugin: str, error: PluginError) -> None:
        """Record the error of a plugin, unless it has one already."""
        self.failures.setdefault(plugin, error)

    def listing(self) -> list[tuple[str, list[str]]]:
        """Return every plugin with its hooks, without importing built-in modules."""
        rows: dict[str, list[str]] = {}
        for hook, module in BUILTINS.items():
            rows.setdefault(module, []).append(hook)
        for name, plugin in self.manager.list_name_plugin():
            if name not in rows and plugin is not None:
                rows[name] = self._hooks_of(name)
        rows.update({name: sorted(hooks) for name, (_, hooks) in self._deferred.items()})
        return list(rows.items())

    def try_all(self) -> None:
        """Call every hook of all plugins but the built-in ones, to fill :attr:`failures`."""
        if self.manager.list_name_plugin() or self._deferred:
            for hook in BUILTINS:
                if self.add_to(hook):
                    self.families() if hook == "surgeon_families" else self._named(hook, KINDS[hook])

    def owner_of(self, error: BaseException) -> str | None:
        """Find the plugin in whose code ``error`` was raised, from its traceback."""
        plugins = {n: p for n, p in self.manager.list_name_plugin() if n not in BUILTINS.values()}
        return plugin_in_traceback(error, plugins)

    def _implementations(self, hook: str) -> Iterator[tuple[str, Callable[..., Any]]]:
        """Yield the plugins that implement ``hook``: built-in ones first, then in order of registration."""
        builtin = BUILTINS.get(hook)
        if builtin and not self.manager.has_plugin(builtin):
            self.manager.register(importlib.import_module(builtin), builtin)
        for name in [name for name, (_, hooks) in self._deferred.items() if hook in hooks]:
            self._import(name)
        order = {name: position for position, name in enumerate(self._order)}
        implemented = getattr(self.manager.hook, hook).get_hookimpls()
        for impl in sorted(
            implemented, key=lambda impl: -1 if impl.plugin_name == builtin else order.get(impl.plugin_name, 0)
        ):
            yield impl.plugin_name, impl.function

    def _call(self, hook: str) -> list[tuple[str, Named]]:
        """Return what each plugin offers through ``hook``, validated; record the errors of those that fail."""
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
        """Return what all plugins offer through ``hook``, by name.

        Built-in names take precedence. A name that two plugins claim is left out and recorded in :attr:`conflicts`.
        """
        if hook not in self._offers:
            from surgeon.interfaces.offers import is_same

            offers: dict[str, Any] = {}
            owners: dict[str, list[str]] = {}
            for plugin, named in self._call(hook):
                for name, offer in named:
                    if is_same(offers.get(name), offer):  # installed and registered
                        continue
                    owners.setdefault(name, []).append(plugin)
                    offers.setdefault(name, offer)
            self._owners.update({(kind, name): plugins[0] for name, plugins in owners.items()})
            for name, plugins in owners.items():
                if len(plugins) > 1:
                    has_builtin = plugins[0] == BUILTINS[hook]
                    if not has_builtin:
                        del offers[name]
                    self.conflicts[f"{kind} {name}"] = PluginError(
                        f"{kind} {name!r} is claimed by {' and '.join(map(self.origin, plugins))}"
                        + ("; the built-in one is used" if has_builtin else ""),
                        hint="rename it in the plugin, or disable the plugin with --without NAME",
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
    """Load the plugins of a run.

    The environment variable ``SURGEON_PLUGINS`` restricts which installed plugins are loaded: names separated by
    commas, or empty for none.

    Args:
        extra: Files (``tools/prune.py``) or modules (``mylab.surgery``), as for ``--plugin``.
        installed: Whether to load installed packages with an entry point in the group ``surgeon``.
        without: Installed plugins to leave out, by plugin or distribution name.
        strict: Whether to raise if one of ``extra`` cannot be loaded, instead of recording the error.

    Raises:
        PluginError: One of ``extra`` cannot be loaded, or ``without`` or ``SURGEON_PLUGINS`` names a plugin that is not
            installed. Errors of installed plugins are recorded in ``failures`` instead.
    """
    plugins = Plugins()
    for entry in chosen(without) if installed else ():
        plugins.defer(entry)
    for name in extra:
        try:
            plugins.register(imported(name, partial(file_or_module, name)), name)
        except PluginError as error:
            if strict:
                raise
            plugins.fail(name, error)
    for name, plugin in registered_plugins().items():
        plugins.register(plugin, name)
    return plugins


def as_plugins(plugins: Plugins | Sequence[str] | None) -> Plugins:
    """Return the plugins of a run; ``plugins`` may also name files and modules to load beside the installed ones.

    Raises:
        PluginError: A file or module cannot be loaded.
    """
    if isinstance(plugins, Plugins):
        return plugins
    return load([plugins] if isinstance(plugins, str) else plugins or ())


load_plugins = load
"""The public name of :func:`load`: ``surgeon.load`` loads a network."""
