"""Put the tensors of a base model and of an adapter together, under the names of the adapted network."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

from surgeon.checkpoint.contents import Checkpoint, memory_entry
from surgeon.checkpoint.files import open_file
from surgeon.errors import CheckpointError
from surgeon_peft.config import ADAPTER, kind_of
from surgeon_peft.injection import AuxiliaryTrainingWrapper, state_of
from surgeon_peft.provider import config_of, weights_of

if TYPE_CHECKING:
    from torch import nn

    from surgeon.architectures.source import Source


def joined(skeleton: nn.Module, adapter: Checkpoint, base: Source, values: dict[str, Any], folder: Path) -> Checkpoint:
    """Join the checkpoints of a base and its adapter.

    Args:
        skeleton: The adapted network.
        adapter: The adapter's checkpoint, as it was opened.
        base: The base model.
        values: The adapter's config.
        folder: The adapter's folder.

    Raises:
        CheckpointError: A tensor of the adapter has no place, another shape, or is missing.
    """
    assert base.checkpoint is not None
    model = base.skeleton()
    names = {id(tensor): name for name, tensor in reversed(state_of(model).items())}
    wrapped = wrap(model, values, folder)
    inner = _first_names(state_of(inner_of(wrapped)))
    mapping = base.mapping or {}
    entries = {}
    for key, name in inner.items():
        if (plain := names.get(key)) in mapping:
            entries[name] = replace(base.checkpoint.entries[mapping[plain]], name=name)
    file = open_file(weights_of(folder))
    for name, (source, tensor) in _placed(wrapped, file, folder).items():
        entry = memory_entry(name, tensor) if tensor is not None else replace(file.entries[source], name=name)
        entries[name] = entry
    adapter_names = {name for key, name in inner.items() if key not in names}
    absent = sorted(adapter_names - entries.keys())
    if absent:
        raise CheckpointError(
            f"it lacks {len(absent)} tensors that its config asks for: {', '.join(absent[:3])}",
            where=str(folder),
            hint="save it again with peft's save_pretrained; projections have to be saved too (save_projection)",
        )
    return replace(
        base.checkpoint,
        location=adapter.location,
        entries=entries,
        aliases={},
        files=[*base.checkpoint.files, *adapter.files],
        stamps={**base.checkpoint.stamps, **adapter.stamps},
        notes=[
            *base.checkpoint.notes,
            f"base {base.location}: {len(entries) - len(adapter_names)} tensors, adapter: {len(adapter_names)}",
        ],
    )


def wrap(model: nn.Module, values: dict[str, Any], folder: Path) -> PeftModel:
    """Let peft wrap a network without weights."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        return PeftModel(model, config_of(values, folder), ADAPTER, low_cpu_mem_usage=True)


def inner_of(wrapped: PeftModel) -> nn.Module:
    """Return the network that peft has wrapped, with its adapter."""
    return cast("nn.Module", wrapped.base_model.model)


def _placed(wrapped: PeftModel, file: Checkpoint, folder: Path) -> dict[str, tuple[str, torch.Tensor | None]]:
    """Find the place of each tensor of an adapter: name in the network → name in the file, or a tensor of peft's."""
    tags = {n: torch.empty(e.shape, dtype=e.dtype, device="meta") for n, e in file.entries.items()}
    sources = {id(tag): name for name, tag in tags.items()}
    placed = _remapped(wrapped, tags, folder)
    if any(id(tensor) not in sources and not _is_in(wrapped, key, tensor) for key, tensor in placed.items()):
        placed = _remapped(wrapped, {name: file.read(name) for name in file.entries}, folder)
        sources = {}
    state = state_of(wrapped)
    inner = _first_names(state_of(inner_of(wrapped)))
    result: dict[str, tuple[str, torch.Tensor | None]] = {}
    for key, tensor in placed.items():
        target = state.get(key)
        if target is None and _is_copy(file, sources.get(id(tensor), "")):
            continue
        if target is None:
            raise CheckpointError(
                f"its base model has no place for {sources.get(id(tensor), key)}",
                where=str(folder),
                hint="is base_model_name_or_path the model that it was trained on?",
            )
        if tensor is target:
            continue
        if target.shape != tensor.shape:
            raise CheckpointError(
                f"{sources.get(id(tensor), key)} has shape {tuple(tensor.shape)}, and its base model takes "
                f"{tuple(target.shape)}",
                where=str(folder),
                hint="is base_model_name_or_path the model that it was trained on?",
            )
        source = sources.get(id(tensor))
        result[inner[id(target)]] = (source or key, None if source else tensor)
    return result


def _is_copy(file: Checkpoint, name: str) -> bool:
    """Whether a tensor is the second copy that peft writes of a saved module's bias where all biases train."""
    twin = name.replace(".modules_to_save.", ".")
    return twin != name and twin in file.entries and torch.equal(file.read(twin), file.read(name))


def _remapped(wrapped: PeftModel, tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Let peft turn the names of a file into those of a wrapped network."""
    state = dict(tensors)
    for name, module in wrapped.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            for key, store in module.adapter_state_dict_load_map(ADAPTER).items():  # type: ignore[no-untyped-call]
                saved = f"{name}.{key}"
                if saved not in tensors:
                    raise CheckpointError(f"it lacks {saved}", where=str(folder), hint="save the adapter again")
                state[f"{name}.{store}"] = state.pop(saved)
    config = wrapped.peft_config[ADAPTER]
    tuner = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(kind_of(config))]
    try:
        remapped: dict[str, torch.Tensor] = tuner._remap_adapter_state_dict_for_load(
            model=wrapped, config=config, adapter_name=ADAPTER, state_dict=state
        )
    except (ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"peft refuses it: {' '.join(str(error).split())}", where=str(folder)) from error
    return remapped


def _is_in(wrapped: PeftModel, key: str, tensor: torch.Tensor) -> bool:
    return state_of(wrapped).get(key) is tensor


def _first_names(tensors: dict[str, torch.Tensor]) -> dict[int, str]:
    """Return the first name of each tensor, by identity."""
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    return first
