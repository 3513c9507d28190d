"""Open folders: Hugging Face's (``config.json``, weights) and surgeon's artifacts (``surgeon.json``, weights)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from surgeon.checkpoint.artifact_files import CONFIG, MANIFEST, WEIGHTS
from surgeon.checkpoint.contents import Checkpoint, damage_at
from surgeon.checkpoint.files import below_key, foreign, open_file
from surgeon.checkpoint.jsonfiles import read_object
from surgeon.checkpoint.safetensors import open_shards
from surgeon.errors import CheckpointError

WHOLE = (
    WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of a folder's weights, in transformers' order of preference."""

VARIANT = re.compile(
    r"^(?:model|pytorch_model)\.(?:(?P<file>(?!index\b)\w+)\.(?:safetensors|bin)(?:\.index\.json)?"
    r"|(?:safetensors|bin)\.index\.(?P<index>\w+)\.json)$"
)
"""Weights written by ``save_pretrained(variant="fp16")``."""

SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>(?:\.\w+)?\.(?:safetensors|bin))$")
"""One shard, as ``save_pretrained`` names it."""

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")

BESIDE = re.compile(r"^(optimizer|scheduler|scaler|training_args|rng_state\w*|random_states\w*)\.\w+$")
"""Files with the same suffixes that a Trainer saves beside the weights."""


def open_folder(folder: Path, *, trust_pickle: bool = False, key: str | None = None) -> Checkpoint:
    """Open the weights in ``folder``, with its ``config.json`` and ``surgeon.json``.

    Raises:
        CheckpointError: No weights have a usual name, or they are damaged.
    """
    with damage_at(str(folder), "cannot be read"):
        names = sorted(path.name for path in folder.iterdir())
    file_name = next((name for name in WHOLE if (folder / name).is_file()), None)
    notes: list[str] = []
    if file_name is None:
        file_name, notes = _variant(folder, names)
    shards = [] if file_name else _shards(folder, names)
    if file_name:
        checkpoint = open_file(folder / file_name, trust_pickle=trust_pickle, key=key)
    elif shards:
        notes = [f"no index: the {len(shards)} shards are read as one model"]
        checkpoint = open_shards(shards, lambda shard: open_file(shard, trust_pickle=trust_pickle))
        checkpoint = below_key(checkpoint, key)
    else:
        raise _without_model(folder, names)
    _check_gathered(checkpoint, folder, names)
    checkpoint = with_neighbours(replace(checkpoint, notes=[*notes, *checkpoint.notes]), folder)
    return replace(checkpoint, location=str(folder))


def holds_weights(folder: Path) -> bool:
    """Return whether a folder has files that look like weights, even in a format that :func:`open_folder` refuses.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    with damage_at(str(folder), "cannot be read"):
        names = [path.name for path in folder.iterdir()]
    return foreign(names, "") is not None or any(
        name in WHOLE or VARIANT.match(name) or (name.endswith(SUFFIXES) and not BESIDE.match(name)) for name in names
    )


def _variant(folder: Path, names: list[str]) -> tuple[str | None, list[str]]:
    """Return the weights of the only variant in ``folder``, preferring safetensors, and a note about it."""
    variants: dict[str, list[str]] = {}
    for name in names:
        match = VARIANT.match(name)
        if match:
            variants.setdefault(match["file"] or match["index"], []).append(name)
    if not variants:
        return None, []
    files = [min(group, key=lambda name: ".safetensors" not in name) for group in variants.values()]
    if len(files) > 1:
        hint = f"name one of its files: {', '.join(str(folder / name) for name in files[:4])}"
        raise CheckpointError(f"it holds the variants {', '.join(variants)}", where=str(folder), hint=hint)
    return files[0], [f"variant '{next(iter(variants))}' taken from {files[0]}: there is no other"]


def _shards(folder: Path, names: list[str]) -> list[Path]:
    """Return the shards of the only sharded model in ``folder`` without an index."""
    models: dict[tuple[str, str, int], dict[int, str]] = {}
    for name in names:
        match = SHARD.match(name)
        if match:
            model = match["stem"], match["suffix"], int(match["count"])
            models.setdefault(model, {})[int(match["number"])] = name
    if not models:
        return []
    if len(models) > 1:
        listed = ", ".join(next(iter(shards.values())) for shards in models.values())
        hint = "put the shards of each model into a separate folder, with its index"
        raise CheckpointError(f"it holds shards of {len(models)} models: {listed}", where=str(folder), hint=hint)
    ((stem, suffix, count), shards) = models.popitem()
    absent = [number for number in range(1, count + 1) if number not in shards]
    if absent or len(shards) > count:
        missing = ", ".join(f"{stem}-{number:05d}-of-{count:05d}{suffix}" for number in absent[:3])
        raise CheckpointError(
            f"{len(absent)} of its {count} shards are missing: {missing}",
            where=str(folder),
            hint=f"put the missing files into {folder}, and the index if there is one",
        )
    return [folder / shards[number] for number in sorted(shards)]


def _check_gathered(checkpoint: Checkpoint, folder: Path, names: list[str]) -> None:
    """Refuse the empty tensors that DeepSpeed's ZeRO-3 saves for weights that it has not gathered."""
    empty = [entry.name for entry in checkpoint.entries.values() if entry.shape == (0,)]
    error = foreign([name for name in names if name.startswith(("zero_to_fp32", "global_step"))], str(folder))
    if empty and error:
        error.message += f", whose weights were not gathered: {len(empty)} tensors are empty, such as {empty[0]}"
        raise error


def with_neighbours(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Add the config and manifest in ``folder`` to ``checkpoint``."""
    config = read_object(folder / CONFIG)
    manifest = read_object(folder / MANIFEST)
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
    """Return whether a file has the usual name of a folder's weights, so that the config beside it applies."""
    return path.name in WHOLE or bool(VARIANT.match(path.name))


def _without_model(folder: Path, names: list[str]) -> CheckpointError:
    if "adapter_model.safetensors" in names or "adapter_model.bin" in names:
        hint = f"with the plugin surgeon-peft, name it peft:{folder}; or save the result of PEFT's merge_and_unload()"
        return CheckpointError("a PEFT adapter without its base model", where=str(folder), hint=hint)
    other = foreign(names, str(folder))
    loose = [
        name for name in names if name.endswith(SUFFIXES) and not BESIDE.match(name) and foreign([name], "") is None
    ]
    if other and not loose:
        return other
    hint = f"it has no {WHOLE[0]}, {WHOLE[2]} or their index"
    if loose:
        hint = f"name one of its files: {', '.join(str(folder / name) for name in loose[:4])}"
    elif CONFIG in names:
        path = folder if folder.is_absolute() or str(folder).startswith(".") else f"./{folder}"
        hint = f"hf:{path} is the untrained network that its config.json describes"
    elif names:
        hint += f"; it holds: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    return CheckpointError("a directory without a model", where=str(folder), hint=hint)
