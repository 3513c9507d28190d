"""Folders: Hugging Face's (``config.json``, weights) and surgeon's artifacts (``surgeon.json``, weights)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from surgeon.checkpoint.contents import Checkpoint, damage_at
from surgeon.checkpoint.files import open_file
from surgeon.checkpoint.jsonfiles import read_object
from surgeon.errors import CheckpointError

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""The names under which a folder's weights are looked for, in transformers' own order of preference."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def open_folder(folder: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open the weights in ``folder``, with its ``config.json`` and ``surgeon.json``.

    Raises:
        CheckpointError: There are no weights under the usual names, or they are damaged.
    """
    found = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise _without_model(folder)
    checkpoint = with_neighbours(open_file(found, trust_pickle=trust_pickle, key=key), folder)
    return replace(checkpoint, location=str(folder))


def with_neighbours(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """``checkpoint`` with the configuration and the manifest that lie in ``folder``."""
    config = read_object(folder / "config.json")
    manifest = read_object(folder / "surgeon.json")
    if config is None and manifest is None:
        return checkpoint
    form = "surgeon artifact" if manifest is not None else "Hugging Face folder"
    return replace(
        checkpoint,
        folder=folder,
        config=config,
        manifest=manifest if manifest is not None else checkpoint.manifest,
        format=f"{form} ({checkpoint.format})",
    )


def belongs_to_folder(path: Path) -> bool:
    """Whether a file's name is that of a folder's weights, so that a config beside it is about it."""
    return path.name in WEIGHTS


def _without_model(folder: Path) -> CheckpointError:
    with damage_at(str(folder), "cannot be read"):
        names = sorted(path.name for path in folder.iterdir())
    if "adapter_model.safetensors" in names or "adapter_model.bin" in names:
        hint = "merge it into its base model with PEFT's merge_and_unload() and save that"
        return CheckpointError("a PEFT adapter without its base model", where=str(folder), hint=hint)
    loose = [name for name in names if name.endswith(SUFFIXES)]
    hint = f"it has no {WEIGHTS[0]}, {WEIGHTS[2]} or their index"
    if loose:
        hint = f"name one of its files: {', '.join(str(folder / name) for name in loose[:4])}"
    elif "config.json" in names:
        path = folder if folder.is_absolute() or str(folder).startswith(".") else f"./{folder}"
        hint = f"hf:{path} is the untrained network that its config.json describes"
    elif names:
        hint += f"; it holds: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    return CheckpointError("a directory without a model", where=str(folder), hint=hint)
