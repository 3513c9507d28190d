"""Find the state dict inside an object saved with ``torch.save``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.errors import CheckpointError, suggest

DEPTH = 3
"""How many levels of dictionaries to search for a state dict."""

USUAL = re.compile(r"state_dict|model|ema|net|module|params|weights|teacher|student")
"""Matches keys under which training code saves a state dict."""

BESIDE = re.compile(
    r"optim|^opt$|sched|(^|_)scaler$|^amp$|rng_state|random_state|^callbacks$|^loops$|^criterion|(^|_)loss(es)?(_|$)"
    r"|^hyper_?param|^hparams$|^args$|^cfg$|^config$"
)
"""Matches keys of other values in a training checkpoint, which are never a model."""

ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"})
"""Names that torch.compile, FSDP and activation checkpointing insert into module paths."""

WRAPPERS = ANYWHERE | {"module"}
"""With the name that DataParallel, DistributedDataParallel and AveragedModel insert."""

TRAINING = re.compile(
    r"criterion|(^|_)loss(es)?(_|$)|metrics?$|(^|_)(acc|accuracy|f1|auroc|precision|recall|iou|confmat)(_?\d+)?$"
    r"|^queue(_ptr)?$|project(ion|or)|(^|_)proj(_head)?$|predictor|prototypes|^(dino_|ibot_|mlp_|ssl_)?head$"
    r"|(^|_)(ema|center|centers|temperature|logit_scale|n_averaged|num_updates)$"
)
"""Matches the first part of names of tensors used only in training: losses, metrics, heads of self-supervised learning
(MoCo, SimCLR, BYOL, DINO, SwAV), averages."""

SECOND = re.compile(r"(^|_)(k|key|teacher|target|momentum|ema|averaged|shadow)(_|$)")
"""Matches the first part of names in a second copy of the network that training keeps."""

SAME = 0.9
"""A second copy shares at least this fraction of its tensors with the first; their heads may differ."""


@dataclass(frozen=True)
class StateDict:
    """A dictionary of tensors and its place in the saved object."""

    path: tuple[str, ...]
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()
    """Keys of values that are not tensors."""
    module: nn.Module | None = None
    """The module that the tensors belong to, if the file holds a module instead of a state dict."""

    @property
    def label(self) -> str:
        """The ``key`` that selects it."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.label} ({len(self.tensors)} tensors)"


def find_state_dict(content: Any, key: str | None = None) -> tuple[StateDict, list[str]]:
    """Find the state dict in ``content``, bare or nested, and return it with notes on what was chosen and ignored.

    Args:
        content: The saved object: mappings, tensors, or an ``nn.Module``, whose state dict is returned with it.
        key: The path of the state dict (``model_ema``, ``ema.model``), a prefix of its tensors' names (``encoder_q``),
            or one after the other (``teacher.backbone``).

    Raises:
        CheckpointError: There is no state dict, there are several and ``key`` is None, or none matches ``key``.
    """
    if isinstance(content, Tensor):
        raise CheckpointError("it holds a single tensor, not a state dict")
    everything = [state for state in _walk(content, ()) if state.tensors]
    if not everything:
        kind = type(content).__name__
        raise CheckpointError(
            f"it holds no tensors under names ({kind})",
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
    return chosen, _notes(content, chosen, everything)


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[StateDict]:
    module = value if isinstance(value, nn.Module) else None
    if module is not None:
        value = module.state_dict()
    if not isinstance(value, Mapping):
        return
    tensors = {name: item for name, item in value.items() if isinstance(item, Tensor) and isinstance(name, str)}
    others = tuple(str(name) for name in value if name not in tensors)
    yield StateDict(path, tensors, others, module)
    if len(path) < DEPTH:
        for name, item in value.items():
            if isinstance(name, str):
                yield from _walk(item, (*path, name))


def _models(everything: list[StateDict]) -> list[StateDict]:
    """Return the state dicts that may be the model: no optimizer's, and no loose tensors around or inside one."""
    possible = [state for state in everything if not any(map(BESIDE.search, state.path))] or everything
    dropped: set[tuple[str, ...]] = set()
    for outer in possible:
        inner = [state for state in possible if state.path != outer.path and _inside(state, outer)]
        if not inner:
            continue
        deeper = sum(len(state.tensors) for state in inner)
        usual = any(USUAL.search(part) for state in inner for part in state.path[len(outer.path) :])
        # {"epoch": tensor(3), "model": {…}} is a counter and a model; {"fc.weight": …, "x": {…}} is one.
        if usual or deeper > len(outer.tensors):
            dropped.add(outer.path)
        else:
            dropped.update(state.path for state in inner)
    return [state for state in possible if state.path not in dropped]


def _inside(inner: StateDict, outer: StateDict) -> bool:
    return inner.path[: len(outer.path)] == outer.path


def _by_key(key: str, everything: list[StateDict], models: list[StateDict]) -> tuple[StateDict, list[str]]:
    labelled = [state for state in everything if state.label == key] or [
        state for state in everything if state.path and state.path[-1] == key
    ]
    inside = [state for state in models if ".".join((*state.path, ""))[: len(key) + 1] == f"{key}."]
    matches = labelled or inside or _parts(key, models) or _parts(key, everything)
    if len(matches) == 1:
        return matches[0], [f"state dict taken from '{matches[0].label}'"]
    if matches:
        listed = ", ".join(map(str, matches))
        raise CheckpointError(
            f"key '{key}' names {len(matches)} state dicts: {listed}", hint="give the full path of one"
        )
    labels = [state.label for state in everything if state.label]
    parts = list(dict.fromkeys(part for state in models for part in parts_of(state.tensors)))
    hint = suggest(key, [*labels, *parts])
    if not hint:
        hint = f"it has: {', '.join(labels[:8])}" if labels else "it is a bare state dict: leave --key out"
        if parts and not labels:
            hint += f", or give the beginning of its names: {', '.join(parts[:6])}"
    raise CheckpointError(f"no state dict under key '{key}'", hint=hint)


def _parts(key: str, states: list[StateDict]) -> list[StateDict]:
    """Return the tensors of each state dict whose names begin with ``key``, which may repeat the end of its path."""
    parts = []
    for state in states:
        ends = [".".join(state.path[start:]) for start in range(len(state.path))]
        prefixes = [key, *(key.removeprefix(f"{end}.") for end in ends if key.startswith(f"{end}."))]
        for prefix in prefixes:
            if names := below(state.tensors, prefix):
                tensors = {new: state.tensors[old] for old, new in names.items()}
                parts.append(StateDict((*state.path, prefix), tensors, module=_part_of(state.module, prefix)))
                break
    return parts


def _part_of(module: nn.Module | None, prefix: str) -> nn.Module | None:
    with suppress(AttributeError):  # the prefix skips wrappers' names, or is not a module
        return module.get_submodule(prefix) if module is not None else None
    return None


def below(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Select the names below ``prefix``, which may leave out the parts that wrappers insert.

    Returns:
        Name → the name without the prefix: ``{"module.encoder_q.fc.weight": "fc.weight"}`` for ``encoder_q``.
    """
    names = list(names)
    plain = {name: name.removeprefix(f"{prefix}.") for name in names if name.startswith(f"{prefix}.")}
    prefix_parts = [part for part in prefix.split(".") if part not in WRAPPERS]
    if plain or not prefix_parts:
        return plain
    unwrapped = {}
    for name in names:
        parts = name.split(".")
        for part in prefix_parts:
            while parts and parts[0] in WRAPPERS:
                parts = parts[1:]
            if not parts or parts[0] != part:
                break
            parts = parts[1:]
        else:
            if parts:
                unwrapped[name] = ".".join(parts)
    return unwrapped if len(set(unwrapped.values())) == len(unwrapped) else {}


def parts_of(names: Iterable[str]) -> dict[str, int]:
    """Count the tensors by the first part of their names, after the parts that all names share."""
    names = list(names)
    while len(first := Counter(name.partition(".")[0] for name in names)) == 1 and all("." in name for name in names):
        inner = [name.partition(".")[2] for name in names]
        if not any("." in name for name in inner):
            break
        names = inner
    return {part: count for part, count in first.items() if any(name.startswith(f"{part}.") for name in names)}


def main_part(names: Iterable[str]) -> str | None:
    """Return the first part of names that contains the whole network, if other tensors are used only in training."""
    parts: dict[str, bool] = {}
    for name in names:
        part, dot, _ = name.partition(".")
        parts[part] = parts.get(part, True) and bool(dot)
    if len(parts) > 1:
        parts = {part: is_module for part, is_module in parts.items() if not TRAINING.search(part)}
    if len(parts) != 1:
        return None
    part, is_module = parts.popitem()
    return part if is_module else None


def copies(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the first parts of names of the network and of a second copy that training keeps, if there is one.

    Args:
        shapes: The shape of each tensor by its name.
    """
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        part, _, rest = name.partition(".")
        if "." in rest:  # single layers have many lookalikes, networks do not
            parts.setdefault(part, {})[rest] = shape
    for second, tensors in parts.items():
        if SECOND.search(second):
            for first, others in parts.items():
                shared = tensors.items() & others.items()
                if first != second and len(shared) >= SAME * len(tensors):
                    return [first, second]
    return []


def _notes(content: Any, chosen: StateDict, everything: list[StateDict]) -> list[str]:
    notes = [f"state dict taken from '{chosen.label}'"] if chosen.path else []
    if chosen.path and isinstance(content, Mapping):
        beside = [str(name) for name in content if name != chosen.path[0]]
    else:
        beside = [state.label for state in everything if state.path != chosen.path]
    if beside:
        notes.append(f"beside the state dict, ignored: {_few(beside)}")
    inside = [name for name in chosen.others if name not in beside]
    if inside:
        notes.append(f"not tensors, ignored: {_few(inside)}")
    return notes


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor's values are the bytes of its storage: dense, not quantized, not lazily conjugated."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_conj() and not tensor.is_neg()
