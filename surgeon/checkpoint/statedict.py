"""Finding the state dict inside what ``torch.save`` was given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.errors import CheckpointError, suggest

DEPTH = 3
"""How many dictionaries deep a state dict is looked for."""

USUAL = re.compile(r"state_dict|model|ema|net|module|params|weights|teacher|student")
"""In the keys under which training code puts a state dict."""

BESIDE = re.compile(
    r"optim|^opt$|sched|(^|_)scaler$|^amp$|rng_state|random_state|^callbacks$|^loops$|^criterion|^loss"
    r"|^hyper_?param|^hparams$|^args$|^cfg$|^config$"
)
"""In the keys of what stands beside a state dict in a training checkpoint; never a model."""


@dataclass(frozen=True)
class StateDict:
    """A dictionary of tensors and where it was found."""

    path: tuple[str, ...]
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    """Keys of values that are not tensors."""

    @property
    def label(self) -> str:
        """What ``key`` selects it by."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.label} ({len(self.tensors)} tensors)"


def find_state_dict(content: Any, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in ``content``, bare or nested, and notes on what was chosen and passed over.

    Args:
        content: What was saved: mappings, tensors, ``nn.Module`` (which stands for its state dict).
        key: Where the wanted one is: ``model_ema``, ``ema.model``; or the beginning of the names of the
            tensors that are wanted (``encoder_q``).

    Raises:
        CheckpointError: There is none, there are several and ``key`` is None, or ``key`` names none.
    """
    if isinstance(content, Tensor):
        raise CheckpointError("it holds a single tensor, not a state dict")
    everything = [found for found in _walk(content, ()) if found.tensors]
    if not everything:
        what = type(content).__name__
        raise CheckpointError(
            f"it holds no tensors under names ({what})",
            hint="save the network's state_dict() with torch.save",
        )
    models = _models(everything)
    if key is not None:
        return _by_key(key, everything, models)
    if len(models) > 1:
        raise CheckpointError(
            f"it holds {len(models)} state dicts: {', '.join(map(str, models))}",
            hint=f"choose one with --key, such as --key {models[0].label or models[1].label}",
        )
    chosen = models[0]
    return chosen.tensors, _notes(content, chosen, everything)


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[StateDict]:
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, Mapping):
        return
    tensors = {name: item for name, item in value.items() if isinstance(item, Tensor) and isinstance(name, str)}
    others = tuple(str(name) for name in value if name not in tensors)
    yield StateDict(path, tensors, others)
    if len(path) < DEPTH:
        for name, item in value.items():
            if isinstance(name, str):
                yield from _walk(item, (*path, name))


def _models(everything: list[StateDict]) -> list[StateDict]:
    """Those that may be the model: not an optimizer's, nor tensors that merely stand beside or inside one."""
    possible = [found for found in everything if not any(map(BESIDE.search, found.path))] or everything
    dropped: set[tuple[str, ...]] = set()
    for outer in possible:
        inner = [found for found in possible if found.path != outer.path and _inside(found, outer)]
        if not inner:
            continue
        deeper = sum(len(found.tensors) for found in inner)
        usual = any(USUAL.search(part) for found in inner for part in found.path[len(outer.path) :])
        # {"epoch": tensor(3), "model": {…}} is a counter and a model; {"fc.weight": …, "x": {…}} is one.
        if usual or deeper > len(outer.tensors):
            dropped.add(outer.path)
        else:
            dropped.update(found.path for found in inner)
    return [found for found in possible if found.path not in dropped]


def _inside(inner: StateDict, outer: StateDict) -> bool:
    return inner.path[: len(outer.path)] == outer.path


def _by_key(key: str, everything: list[StateDict], models: list[StateDict]) -> tuple[dict[str, Tensor], list[str]]:
    named = [found for found in everything if found.label == key] or [
        found for found in everything if found.path and found.path[-1] == key
    ]
    below = [found for found in models if ".".join((*found.path, ""))[: len(key) + 1] == f"{key}."]
    matches = named or below
    if not matches:
        # Not a dictionary's key: the beginning of tensor names, such as one of the encoders of MoCo.
        matches = [
            StateDict((*found.path, key), part)
            for found in models
            if (part := {n.removeprefix(f"{key}."): t for n, t in found.tensors.items() if n.startswith(f"{key}.")})
        ]
    if len(matches) == 1:
        return matches[0].tensors, [f"state dict taken from '{matches[0].label}'"]
    if matches:
        listed = ", ".join(map(str, matches))
        raise CheckpointError(f"key '{key}' names {len(matches)} state dicts: {listed}", hint="give one in full")
    labels = [found.label for found in everything if found.label]
    hint = suggest(key, labels) or (f"it has: {', '.join(labels[:8])}" if labels else "its state dict is bare: no key")
    raise CheckpointError(f"no state dict under key '{key}'", hint=hint)


def _notes(content: Any, chosen: StateDict, everything: list[StateDict]) -> list[str]:
    notes = [f"state dict taken from '{chosen.label}'"] if chosen.path else []
    if chosen.path and isinstance(content, Mapping):
        beside = [str(name) for name in content if name != chosen.path[0]]
    else:
        beside = [found.label for found in everything if found.path != chosen.path]
    if beside:
        notes.append(f"beside the state dict, ignored: {_few(beside)}")
    inside = [name for name in chosen.others if name not in beside]
    if inside:
        notes.append(f"not tensors, ignored: {_few(inside)}")
    return notes


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def is_plain(tensor: Tensor) -> bool:
    """Whether its values are just the bytes of its storage: dense, not quantized, not lazily conjugated."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_conj() and not tensor.is_neg()
