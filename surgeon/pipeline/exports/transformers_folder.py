"""Write a network as a folder that ``from_pretrained`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from surgeon.errors import ExportError
from surgeon.interfaces.composite import composite_of
from surgeon.nn.grafts import Grafted
from surgeon.pipeline.exports.call import Call
from surgeon.pipeline.manifest import stock_config

HINT = "use --to torch-export, which needs torch alone, or --to onnx"


def write_folder(call: Call, folder: Path) -> None:
    """Write config and weights with transformers' ``save_pretrained``.

    Raises:
        ExportError: The network is not a stock transformers class; the error says what differs.
    """
    model = call.network.model
    if stock_config(model) is None:
        raise ExportError(
            "its config does not rebuild it as a stock transformers class", where=_reason(call), hint=HINT
        )
    cast("Any", model).save_pretrained(folder)


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
    ours = next((name for name, module in modules.items() if type(module).__module__.startswith("surgeon.")), None)
    return f"{ours}: a module that surgery added" if ours else f"{type(model).__name__}: edited beyond its config"
