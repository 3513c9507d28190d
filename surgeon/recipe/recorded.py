"""Record operations with every field, and turn what an artifact recorded back into operations.

A plugin may change after an artifact was made: another default, another meaning of a field. What replays an artifact
therefore takes the recorded values, not today's defaults, and compares versions:

===================  ===============================================================================================
the operation's      :meth:`Operation.migrate` turns the recorded fields into today's, or refuses. Fields of a newer
``version`` differs  version than the installed one are refused: it cannot know them.
its distribution's   a warning, once. None for surgeon's own operations: those that change get another ``version``.
version differs
===================  ===============================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from surgeon.errors import OperationError, PluginError, SurgeonError, SurgeonWarning
from surgeon.interfaces.distribution import DISTRIBUTION
from surgeon.interfaces.import_plugin import one_line
from surgeon.interfaces.operation import Operation
from surgeon.interfaces.record import Resolved, Surgeries
from surgeon.plugins import Plugins
from surgeon.recipe.document import Document
from surgeon.recipe.load import all_mistakes, operation_class
from surgeon.recipe.problems import validate


def resolved(operations: Iterable[Operation], plugins: Plugins) -> list[Resolved]:
    """Record every field of operations, those at their defaults included, with the versions of their code."""
    return [
        Resolved(
            fields=operation.model_dump(mode="json"),
            version=type(operation).version,
            distribution=distribution,
            release=release,
        )
        for operation in operations
        for distribution, release in [plugins.distribution(type(operation))]
    ]


def recorded_operations(surgeries: Surgeries, plugins: Plugins, *, source: str = "the record") -> list[Operation]:
    """Make the operations of one recorded recipe, as they were when they were recorded.

    Args:
        surgeries: The recorded recipe. Formats 1 and 2 hold no defaults, so today's are taken.
        plugins: Where operations and sources of data come from.
        source: The name of the record, for errors.

    Raises:
        RecipeError: An operation is missing or its fields are not valid; every mistake is in ``problems``.
        OperationError: One was recorded in another version and cannot be turned into the installed one.
    """
    document = Document(source, "")
    operations = []
    for index, item in enumerate(surgeries.operations):
        kind = operation_class(item, document, ("operations", index), plugins, surgeries.plugins)
        if kind is None:
            continue
        explicit = {key: value for key, value in item.items() if key != "op"}
        recorded = surgeries.resolved[index] if index < len(surgeries.resolved) else None
        operations.append(_Step(kind, explicit, recorded, plugins, surgeries.plugins, source).operation())
    if document.problems:
        raise all_mistakes(document)
    return operations


class _Step:
    """Turn one recorded operation back into an instance of its class.

    Args:
        kind: Today's class.
        explicit: The fields that its recipe gave.
        recorded: All of its fields, and the versions of its code; None in formats 1 and 2.
        plugins: Where sources of data in its fields come from.
        needed: The plugins that the artifact records.
        source: The name of the record, for errors.
    """

    def __init__(
        self,
        kind: type[Operation],
        explicit: Mapping[str, Any],
        recorded: Resolved | None,
        plugins: Plugins,
        needed: Mapping[str, str],
        source: str,
    ) -> None:
        self.kind, self.has_defaults = kind, recorded is not None
        self.recorded = recorded or Resolved(fields=dict(explicit))
        self.plugins, self.needed, self.source = plugins, needed, source

    def operation(self) -> Operation:
        """Return the operation; see :func:`recorded_operations`."""
        fields = self.recorded.fields
        if self.recorded.version != self.kind.version:
            fields = self._migrated()
        self._compare_distributions()
        document = Document(self.source, "")
        settings = _unlike_defaults(self.kind, fields)
        operation = validate(self.kind, settings, document, plugins=self.plugins, needed=self.needed)
        if operation is None:
            problems = "; ".join(problem.message for problem in document.problems)
            hint = next((problem.hint for problem in document.problems if problem.hint), None)
            raise self._refusal(f"its recorded fields do not fit the installed operation: {problems}", hint)
        if self.has_defaults and (different := _differing(operation, fields)):
            name, value = next(iter(different.items()))
            raise self._refusal(f"its field {name} was recorded as {value!r} and does not come back so")
        return operation

    def _migrated(self) -> dict[str, Any]:
        kind, recorded = self.kind, self.recorded
        if recorded.version > kind.version:
            raise self._refusal(
                f"it was recorded in version {recorded.version}, and the installed version {kind.version} is older"
            )
        try:
            fields: Any = kind.migrate(dict(recorded.fields), recorded.version)
        except SurgeonError as error:
            raise self._refusal(error.message, error.hint) from error
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise self._refusal(f"migrate(fields, {recorded.version}) raised {reason}", plugin=True) from error
        if not isinstance(fields, dict):
            returned = "None: is a return missing?" if fields is None else type(fields).__name__
            raise self._refusal(f"migrate must return the fields as a dict, not {returned}", plugin=True)
        return dict(fields)

    def _compare_distributions(self) -> None:
        """Warn where another distribution, or another version of it, provides the operation now."""
        then = f"{self.recorded.distribution} {self.recorded.release}".strip()
        now = " ".join(self.plugins.distribution(self.kind)).strip()
        if not then or then == now or self.recorded.distribution == DISTRIBUTION == now.partition(" ")[0]:
            return
        text = (
            f"{self.source} was made with the operation {self.kind.name} of {then}; here it comes from "
            f"{now or 'a file or module that is not installed'}: surgeon check compares the outputs"
        )
        if (then, now) not in self.plugins.compared:
            self.plugins.compared.add((then, now))
            warnings.warn(text, SurgeonWarning, stacklevel=2)

    def _refusal(self, problem: str, hint: str | None = None, *, plugin: bool = False) -> SurgeonError:
        distribution, release = self.recorded.distribution, self.recorded.release
        install = f"install what it was made with: python -m pip install '{distribution}=={release}'"
        if not (distribution and release):
            install = "make the artifact again from its recipe, or load it with the plugin that it was made with"
        kind = PluginError if plugin else OperationError
        return kind(f"{self.kind.name}: {problem}", where=self.source, hint=f"{hint}; {install}" if hint else install)


def _unlike_defaults(kind: type[Operation], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that differ from today's defaults: a default need not be valid itself."""
    defaults = kind.model_construct().model_dump(mode="json", warnings=False)
    return {name: value for name, value in fields.items() if name not in defaults or defaults[name] != value}


def _differing(operation: Operation, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded fields that ``operation`` lacks or has with another value; newer fields are ignored."""
    values = operation.model_dump(mode="json")
    return {name: value for name, value in fields.items() if name not in values or values[name] != value}
