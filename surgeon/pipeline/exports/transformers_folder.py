"""Write a network as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from surgeon.errors import ExportError
from surgeon.interfaces.composite import composite_of
from surgeon.nn.grafts import Grafted
from surgeon.pipeline.exports.call import Call
from surgeon.pipeline.exports.grafts.folder import write_grafted
from surgeon.pipeline.manifest import stock_config
from surgeon.pipeline.progress_bars import no_progress_bars


def write_folder(call: Call, folder: Path) -> None:
    """Write config and weights; of a grafted network of transformers, the code that builds it too.

    Raises:
        ExportError: It cannot be built without surgeon; the error says which site stands in the way, and why.
    """
    model = call.network.model
    if stock_config(model) is not None:
        with no_progress_bars():
            cast("Any", model).save_pretrained(folder)
        return
    try:
        write_grafted(model, folder)
    except ExportError as error:
        error.message = f"{_reason(call)}, and {error.where}: {error.message}"
        error.where = None
        raise


def _reason(call: Call) -> str:
    """Name the first site that stock classes do not have, and what it is."""
    model = call.network.model
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, Grafted):
            where = f"{name}." if name else ""
            if module.grafts:
                return f"{where}grafts.{next(iter(module.grafts.keys()))}: a branch that surgery added"
            return f"{where}exit: an early end that surgery added"
        facts = composite_of(module)
        if facts.choices:
            return f"{name or '.'}: several parts to choose from ({', '.join(facts.choices)})"
        if len(facts.entries) > 1:
            return f"{name or '.'}: several networks side by side ({', '.join(entry.site for entry in facts.entries)})"
    if not type(model).__module__.startswith("transformers."):
        return f"{type(model).__module__}.{type(model).__name__}: not a transformers class"
    added = next((name for name, module in modules.items() if type(module).__module__.startswith("surgeon.")), None)
    return f"{added}: a module that surgery added" if added else f"{type(model).__name__}: edited beyond its config"
