"""Manage checkpoints of a training run: location, the run that they belong to, and loading a network from one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_callback import TrainerState

from surgeon.checkpoint.artifact_files import WEIGHTS
from surgeon.errors import SurgeonWarning, TrainingError
from surgeon.graph.tensors import tensors_of

RUN = "run.json"
"""Describes the run that the checkpoints beside it belong to; a run is only resumed if all of it is equal."""
STATE = "trainer_state.json"
"""The last file that the Trainer writes into a checkpoint; a checkpoint without it is incomplete."""
EXTRA = "training.safetensors"
"""Tensors that belong to the training, not to the network, such as learned task weights."""


HARMLESS = ("logging_", "save_", "report_to", "run_name", "dataloader_num_workers", "dataloader_pin_memory",
            "dataloader_persistent_workers", "dataloader_prefetch_factor", "eval_accumulation_steps", "disable_tqdm",
            "log_level", "hub_")  # fmt: skip
"""Prefixes of TrainingArguments that do not affect the result."""


def describe_run(
    model: nn.Module,
    settings: Mapping[str, Any],
    seed: int,
    operations: Mapping[str, Any],
    processes: int = 1,
    data: Mapping[str, Any] | None = None,
    teacher: nn.Module | None = None,
) -> dict[str, Any]:
    """Return what determines a run as JSON-able data: settings, seed, data and initial values."""
    arguments = settings.get("arguments", {})
    relevant = {name: value for name, value in arguments.items() if not name.startswith(HARMLESS)}
    described = {
        "train": {**settings, "arguments": relevant},
        "seed": seed,
        "operations": operations,
        "weights": _digest(model),
        "processes": processes,
        "data": dict(data or {}),
    }
    if teacher is not None:
        described["teacher"] = _digest(teacher)
    return json.loads(json.dumps(described, default=str))  # type: ignore[no-any-return]


def _digest(model: nn.Module) -> str:
    """Return a digest of every tensor of a network."""
    digest = hashlib.sha256()
    for name, tensor in tensors_of(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def start_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Record in ``folder`` the run that its checkpoints belong to; remove checkpoints of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("checkpoint-*"):
        shutil.rmtree(earlier)
    written = folder / f"{RUN}.new"
    written.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    os.replace(written, folder / RUN)


def resume_from(folder: Path, run: Mapping[str, Any]) -> str | None:
    """Return the last complete checkpoint of an interrupted ``run``; None if it has none.

    A :class:`SurgeonWarning` names later checkpoints that are incomplete or damaged, and says where training goes on.

    Raises:
        TrainingError: The folder has no interrupted run, or one of another recipe.
    """
    try:
        begun = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{folder} has no interrupted training to resume", hint="leave --resume out to start one"
        ) from error
    if changes := _changes(begun, run):
        differences = "; ".join(changes[:MOST]) + (f"; and {len(changes) - MOST} more" if len(changes) > MOST else "")
        raise TrainingError(
            f"the interrupted run had other settings: {differences}",
            where=str(folder),
            hint="resume with the same settings, or start over with --force",
        )
    last = last_checkpoint(folder)
    checkpoints = _checkpoints(folder)
    lost = [path.name for path in (checkpoints if last is None else checkpoints[checkpoints.index(last) + 1 :])]
    if lost:
        begins = "training starts from the beginning" if last is None else f"training goes on from {last.name}"
        names = f"{', '.join(lost)} {'has' if len(lost) == 1 else 'have'}"
        warnings.warn(f"{folder}: {names} no {STATE} that can be read; {begins}", SurgeonWarning, stacklevel=2)
    return None if last is None else str(last)


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint in ``folder``; a killed process may leave an incomplete one."""
    return next(filter(_is_complete, reversed(_checkpoints(folder))), None)


def _checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoints in ``folder``, the earliest first."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    return [numbered[number] for number in sorted(numbered)]


def _is_complete(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
    except (OSError, ValueError, TypeError):
        return False
    return True


MOST = 3
"""The most changes to list."""
MISSING = "nothing"
NAMES = {
    "weights": "the initial weights",
    "teacher": "the weights of the teacher",
    "processes": "the number of processes",
    "seed": "the seed",
}


def _changes(begun: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Return the changes by key in the recipe: ``train.learning_rate was 0.01 and is 0.1``."""
    changes = []
    for key in run:
        if key in ("train", "data", "operations"):
            for path, before, now in _differences(begun.get(key), run[key], key):
                changes.append(_describe(path, before, now))
        elif begun.get(key) != run[key]:
            short = key in ("weights", "teacher")
            changes.append(NAMES[key] + ("" if short else f" (was {begun.get(key, MISSING)}, is {run[key]})"))
    return changes


def _differences(before: Any, now: Any, path: str) -> list[tuple[str, Any, Any]]:
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [
            change
            for key in keys
            for change in _differences(before.get(key, MISSING), now.get(key, MISSING), f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [change for i, (one, two) in pairs for change in _differences(one, two, f"{path}.{i}")]
    return [(path, before, now)]


def _describe(path: str, before: Any, now: Any) -> str:
    if path.startswith("data.") and path.endswith(".inputs"):
        return f"the inputs of the {path.split('.')[1]}"
    if path.startswith("data.") and ".labels." in path:
        return f"the labels {path.rpartition('.')[2]!r} of the {path.split('.')[1]}"
    return f"{path} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."


def save_network(model: nn.Module, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write every tensor of ``model``, tied ones once; ``state`` overrides the values."""
    tensors = {
        name: (tensor if state is None else state[name]).detach().contiguous() for name, tensor in tensors_of(model)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_network(model: nn.Module, folder: Path) -> None:
    """Load the tensors that :func:`save_network` wrote, in place.

    Raises:
        TrainingError: The file has other tensors than the network.
    """
    stored = load_file(folder / WEIGHTS)
    tensors = dict(tensors_of(model))
    if mismatched := sorted(stored.keys() ^ tensors.keys()):
        raise TrainingError(f"the checkpoint {folder} belongs to another network: {', '.join(mismatched[:3])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(stored[name])
