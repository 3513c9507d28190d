"""Add adapters of the library peft to surgeon: operations ``peft`` and ``merge_adapters``, models ``peft:FOLDER``.

Read ``operation.py`` first. ``config.py`` checks peft's configs, ``injection.py`` lets peft build its layers in a
network without weights, ``initial.py`` computes their first values layer by layer, ``merging.py`` merges them,
``provider.py`` opens an adapter folder, ``exporting.py`` writes one. Importing the package imports neither torch nor
peft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgeon import hookimpl
from surgeon_peft.merge_operation import MergeAdapters
from surgeon_peft.operation import Peft
from surgeon_peft.provider import AdapterFolder

if TYPE_CHECKING:
    import typer

    from surgeon import ArchitectureProvider, Operation

__all__ = ["AdapterFolder", "MergeAdapters", "Peft", "export_adapter"]


@hookimpl
def surgeon_operations() -> list[type[Operation]]:
    """Return the operations of this plugin."""
    return [Peft, MergeAdapters]


@hookimpl
def surgeon_architectures() -> list[ArchitectureProvider]:
    """Return the provider of base models with adapters."""
    return [AdapterFolder()]


@hookimpl
def surgeon_commands(app: typer.Typer) -> None:
    """Add ``surgeon export-adapter``."""
    from surgeon_peft.command import export_adapter_command

    app.command("export-adapter")(export_adapter_command)


def __getattr__(name: str) -> object:
    if name == "export_adapter":
        from surgeon_peft.exporting import export_adapter

        return export_adapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
