"""Checkpoints of a training run: where they lie, what run they belong to, and how a network is put back from one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_callback import TrainerState

from surgeon.errors import TrainingError
from surgeon.graph.tensors import tensors_of

RUN = "run.json"
"""What the checkpoints beside it were made from: a run is only resumed where all of it is the same."""
WEIGHTS = "model.safetensors"
STATE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint: without it, the process was killed before the rest was there."""
EXTRA = "training.safetensors"
"""Tensors that belong to the training and not to the network, such as learnt task weights."""


HARMLESS = ("logging_", "save_", "report_to", "run_name", "dataloader_num_workers", "dataloader_pin_memory",
            "dataloader_persistent_workers", "dataloader_prefetch_factor", "eval_accumulation_steps", "disable_tqdm",
            "log_level", "hub_")  # fmt: skip
"""TrainingArguments, by how they begin, that do not alter what a run comes to."""


def describe_run(
    model: nn.Module,
    settings: Mapping[str, Any],
    seed: int,
    wanted: Mapping[str, Any],
    processes: int = 1,
    data: Mapping[str, Any] | None = None,
    teacher: nn.Module | None = None,
) -> dict[str, Any]:
    """What decides how a run goes, as JSON-able data: settings, seed, data and the values it starts from."""
    arguments = settings.get("arguments", {})
    kept = {name: value for name, value in arguments.items() if not name.startswith(HARMLESS)}
    described = {
        "train": {**settings, "arguments": kept},
        "seed": seed,
        "operations": wanted,
        "weights": _digest(model),
        "processes": processes,
        "data": dict(data or {}),
    }
    if teacher is not None:
        described["teacher"] = _digest(teacher)
    return json.loads(json.dumps(described, default=str))  # type: ignore[no-any-return]


def _digest(model: nn.Module) -> str:
    """A digest of every tensor of a network."""
    digest = hashlib.sha256()
    for name, tensor in tensors_of(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def start_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Note in ``folder`` what run its checkpoints will belong to; those of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("checkpoint-*"):
        shutil.rmtree(earlier)
    written = folder / f"{RUN}.new"
    written.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    os.replace(written, folder / RUN)


def resume_from(folder: Path, run: Mapping[str, Any]) -> str | None:
    """The last checkpoint of an interrupted ``run``; None where it was interrupted before it made one.

    Raises:
        TrainingError: The folder has no interrupted run, or that of another recipe.
    """
    try:
        begun = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{folder} has no interrupted training to resume", hint="leave --resume out to start one"
        ) from error
    if changes := _changes(begun, run):
        shown = "; ".join(changes[:MOST]) + (f"; and {len(changes) - MOST} more" if len(changes) > MOST else "")
        raise TrainingError(
            f"the run that was interrupted differs from this one in what decides how it goes: {shown}",
            where=str(folder),
            hint="resume with what it was begun with, or begin anew with --force",
        )
    last = last_checkpoint(folder)
    return None if last is None else str(last)


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint in ``folder`` that is complete: a process that is killed may leave one that is not."""
    numbered = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and _is_complete(path)
    }
    return numbered[max(numbered)] if numbered else None


def _is_complete(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE))
    except (OSError, ValueError, TypeError):
        return False
    return True


MOST = 3
"""So many changes are named."""
MISSING = "nothing"
NAMES = {
    "weights": "the weights it starts from",
    "teacher": "the weights of the teacher",
    "processes": "the number of processes",
    "seed": "the seed",
}


def _changes(begun: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """What has changed, by its key in the recipe: ``train.learning_rate was 0.01 and is 0.1``."""
    changes = []
    for key in run:
        if key in ("train", "data", "operations"):
            for path, before, now in _differences(begun.get(key), run[key], key):
                changes.append(_said(path, before, now))
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


def _said(path: str, before: Any, now: Any) -> str:
    if path.startswith("data.") and path.endswith(".inputs"):
        return f"the inputs of the {path.split('.')[1]}"
    if path.startswith("data.") and ".labels." in path:
        return f"the labels {path.rpartition('.')[2]!r} of the {path.split('.')[1]}"
    return f"{path} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."


def save_network(model: nn.Module, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write every tensor of ``model``, a tied one once; ``state`` gives the values where they lie elsewhere."""
    tensors = {
        name: (tensor if state is None else state[name]).detach().contiguous() for name, tensor in tensors_of(model)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_network(model: nn.Module, folder: Path) -> None:
    """Load what :func:`save_network` wrote, in place.

    Raises:
        TrainingError: It holds other tensors than the network has.
    """
    stored = load_file(folder / WEIGHTS)
    tensors = dict(tensors_of(model))
    if odd := sorted(stored.keys() ^ tensors.keys()):
        raise TrainingError(f"the checkpoint {folder} is of another network: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(stored[name])
