"""Checkpoints of a training run: where they lie, what run they belong to, and how a network is put back from one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from surgeon.errors import TrainingError
from surgeon.graph.tensors import tensors_of

RUN = "run.json"
"""What the checkpoints beside it were made from: a run is only resumed where all of it is the same."""
WEIGHTS = "model.safetensors"
EXTRA = "training.safetensors"
"""Tensors that belong to the training and not to the network, such as learnt task weights."""


def describe_run(
    model: nn.Module, settings: Mapping[str, Any], seed: int, asked: Mapping[str, Any], processes: int = 1
) -> dict[str, Any]:
    """What decides how a run goes, as JSON-able data: the settings, the seed and the values it starts from."""
    digest = hashlib.sha256()
    for name, tensor in tensors_of(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    described = {
        "settings": settings,
        "seed": seed,
        "operations": asked,
        "weights": digest.hexdigest(),
        "processes": processes,
    }
    return json.loads(json.dumps(described, default=str))  # type: ignore[no-any-return]


def start_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Note in ``folder`` what run its checkpoints will belong to; those of an earlier run go."""
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("checkpoint-*"):
        shutil.rmtree(earlier)
    (folder / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def resume_from(folder: Path, run: Mapping[str, Any]) -> str | None:
    """The last checkpoint of an interrupted ``run``; None where it was interrupted before it made one.

    Raises:
        TrainingError: There is no such run, or it is another one.
    """
    try:
        begun = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"there is no interrupted training in {folder}", hint="leave --resume out to begin one"
        ) from error
    if differing := [key for key in run if begun.get(key) != run[key]]:
        what = {"weights": "the weights it starts from", "processes": "the number of processes"}
        told = ", ".join(what.get(key, f"the {key}") for key in differing)
        raise TrainingError(
            f"the run that was interrupted differs from this one in {told}",
            where=str(folder),
            hint="resume with what it was begun with, or begin anew with --force",
        )
    last = get_last_checkpoint(str(folder))
    return None if last is None else str(last)


def save_network(model: nn.Module, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write every tensor of ``model``, a tied one once; ``state`` gives the values where they lie elsewhere."""
    tensors = {
        name: (tensor if state is None else state[name]).detach().contiguous() for name, tensor in tensors_of(model)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_network(model: nn.Module, folder: Path) -> None:
    """Put back what :func:`save_network` wrote, in place.

    Raises:
        TrainingError: It holds other tensors than the network has.
    """
    stored = load_file(folder / WEIGHTS)
    own = dict(tensors_of(model))
    if odd := sorted(stored.keys() ^ own.keys()):
        raise TrainingError(f"the checkpoint {folder} is of another network: {', '.join(odd[:3])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
