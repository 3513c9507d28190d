"""Compare what no state dict holds with what it was when an artifact was written.

Non-persistent buffers and tensors in plain attributes come from code, of the library or of a plugin: they may come out
otherwise in another version of it, or in every process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from torch import nn

from surgeon.checkpoint.formats import Checkpoint
from surgeon.errors import CheckpointError, SurgeonWarning, VerificationError
from surgeon.graph.sketch import TOLERANCE, Sketch, distance, sketch_of
from surgeon.graph.unsaved_state import unsaved_state

KEY = "state"
"""The key of a manifest that holds the sketches, by address."""


def sketch_state(model: nn.Module) -> dict[str, Sketch]:
    """Sketch everything that no state dict of ``model`` holds, for the manifest."""
    return {address: sketch_of(tensor) for address, tensor in unsaved_state(model).items()}


def compare_state(model: nn.Module, checkpoint: Checkpoint, *, strict: bool) -> None:
    """Compare a rebuilt network with what its artifact recorded, and warn of every difference.

    Args:
        model: The network, or its skeleton.
        checkpoint: The artifact; one of format 2 or earlier recorded nothing.
        strict: Raise where a value differs. What is not there any more may be left over from a forward pass.

    Raises:
        VerificationError: ``strict`` is set, and a value differs.
        CheckpointError: The manifest is damaged.
    """
    recorded = (checkpoint.manifest or {}).get(KEY, {})
    today = unsaved_state(model)
    try:
        shapes = {name: sketch["shape"] for name, sketch in recorded.items()}
        comparable = [name for name in shapes if name in today and list(today[name].shape) == shapes[name]]
        changed = [name for name in comparable if not distance(recorded[name], today[name]) <= TOLERANCE]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"its manifest is damaged: {KEY}: {error}"
        raise CheckpointError(message, where=checkpoint.location, hint="make the artifact again") from error
    hint = (
        "it comes from code, which draws it again or has changed: register it as a persistent buffer, or draw it from "
        "torch, numpy or random while the module is built, where their generators are seeded"
    )
    if changed and strict:
        raise VerificationError(_text(model, changed, "has other values"), where=checkpoint.location, hint=hint)
    if changed:
        text = f"{checkpoint.location}: {_text(model, changed, 'has other values')}: {hint}"
        warnings.warn(text, SurgeonWarning, stacklevel=3)
    if missing := sorted(shapes.keys() - set(comparable)):
        text = f"{checkpoint.location}: {_text(model, missing, 'is gone or of another shape')}: outputs may differ"
        warnings.warn(text, SurgeonWarning, stacklevel=3)


def _text(model: nn.Module, addresses: Iterable[str], difference: str) -> str:
    first, *rest = addresses
    modules = dict(model.named_modules())
    site = first
    while site and site not in modules:
        site = site.rpartition(".")[0]
    more = f" (and {len(rest)} more: {', '.join(rest[:3])})" if rest else ""
    owner = type(modules[site]).__name__
    return f"{first} of {owner}{more}, which no state dict holds, {difference} than when it was written"
