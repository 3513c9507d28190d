"""Describe what lies in an artifact: its files, and the keys of its manifest."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from surgeon.checkpoint.artifact import SHARD_BYTES
from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST, RECIPE, WEIGHTS
from surgeon.checkpoint.companions import KINDS
from surgeon.docs.rst import docstring, escape, heading, key, literal, table
from surgeon.interfaces.record import FORMAT, Record, Resolved, Surgeries
from surgeon.pipeline.manifest import KEYS

STOCK = "where the result is a stock class of its library, which then loads it with plain ``from_pretrained``"


def artifact_page() -> str:
    """Write the page about artifacts."""
    files = [
        (literal(WEIGHTS), f"The tensors; in shards with an index past {SHARD_BYTES // 10**9} GB."),
        (literal(MANIFEST), "The manifest: how it was made; its keys are below."),
        (literal(RECIPE), "The last recipe, as its author wrote it."),
        (literal(CONFIG), f"The config, {STOCK}."),
        *((", ".join(map(literal, _few(names))), f"The {kind} of the source.") for kind, names in KINDS.items()),
    ]
    intro = (
        "``surgeon apply`` and ``surgeon train`` write a folder. ``-o out.safetensors`` and ``-o out.pt`` write one "
        "file, with the manifest inside; a ``.pt`` is a plain state dict for ``torch.load``. Nothing in an artifact is "
        "code."
    )
    manifest = [(literal(key), escape(text)) for key, text in KEYS.items()]
    parts = [
        heading("Artifacts", label="artifacts"),
        intro + "\n",
        table(["file", ""], files, widths="35 65"),
        heading("The manifest", 1),
        f"The form described here has the number {FORMAT}; all earlier ones are read too.\n",
        table(["key", ""], manifest, widths="25 75"),
        *(_record(kind) for kind in (Record, Surgeries, Resolved)),
    ]
    return "\n".join(parts)


def _record(kind: type[BaseModel]) -> str:
    label = f"manifest-{kind.__name__}"
    fields = [
        key(f"manifest.{kind.__name__}.{name}", " ".join((field.description or "").split()))
        for name, field in kind.model_fields.items()
    ]
    return "\n".join([heading(kind.__name__, 1, label=label), docstring(kind.__doc__ or "") + "\n", *fields])


def _few(names: Iterable[str], most: int = 3) -> list[str]:
    listed = list(names)
    return listed if len(listed) <= most else [*listed[:most], "…"]
