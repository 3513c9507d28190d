"""Write the adapter of a network as the folder that peft loads, by peft's own ``save_pretrained``."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

import surgeon
from surgeon.errors import ExportError, OutputError
from surgeon.interfaces.record import record_of
from surgeon_peft.config import ADAPTER
from surgeon_peft.entries import inner_of
from surgeon_peft.injection import ModulesToSaveWrapper, layers_of, state_of

FILES = frozenset({"adapter_config.json", "adapter_model.safetensors", "README.md"})


def export_adapter(
    model: nn.Module | str | Path, output: str | Path, *, base: str | Path | None = None, force: bool = False
) -> Path:
    """Write the adapter of a network, so that ``PeftModel.from_pretrained(base, output)`` computes the same.

    Before the folder appears, peft reads it onto the network without its adapter, and every tensor is compared.

    Args:
        model: A network with an adapter, an artifact's path, or any other reference to a model.
        output: The folder.
        base: The base model that the folder names; by default what the network was made from.
        force: Whether to replace an adapter's folder that exists.

    Raises:
        ExportError: The network has no adapter, or peft does not read back what it wrote.
        OutputError: The folder exists.
    """
    output = Path(output)
    if output.exists() and not force:
        raise OutputError(f"{output} exists", hint="--force replaces it")
    if output.exists() and (not output.is_dir() or not {p.name for p in output.iterdir()} <= FILES):
        raise OutputError(f"{output} holds more than an adapter", hint="give another path")
    network = model if isinstance(model, nn.Module) else surgeon.load(model)
    configs = getattr(network, "peft_config", None)
    if not isinstance(configs, dict) or ADAPTER not in configs:
        raise ExportError("the network has no adapter of peft", hint="attach one with the operation peft")
    config = copy.deepcopy(configs[ADAPTER])
    config.base_model_name_or_path = str(base) if base is not None else _base_of(network)
    wrapped = _wrapped(network, config)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-adapter-", dir=output.parent) as scratch:
        folder = Path(scratch) / "adapter"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapped.save_pretrained(str(folder))
        _check(network, wrapped, folder)
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    return output


def without_adapter(network: nn.Module) -> nn.Module:
    """Copy a network without its adapter; tensors of the base are shared with the original."""
    memo: dict[int, Any] = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    plain = copy.deepcopy(network, memo)
    for site, layer in list(layers_of(plain)):
        original = layer.original_module if isinstance(layer, ModulesToSaveWrapper) else layer.get_base_layer()  # type: ignore[operator]
        path, _, name = site.rpartition(".")
        plain.get_submodule(path)._modules[name] = original
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    return plain


def _wrapped(network: nn.Module, config: Any) -> PeftModel:
    """Let peft wrap the network without its adapter, and give it the adapter's tensors."""
    plain = without_adapter(network)
    values = {name: tensor.detach() for name, tensor in state_of(network).items()}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        wrapped = PeftModel(plain, config, ADAPTER)
    state = state_of(inner_of(wrapped))
    if state.keys() != values.keys():
        differing = sorted(state.keys() ^ values.keys())
        raise ExportError(
            f"peft would attach the adapter otherwise to this network: {', '.join(differing[:3])}",
            hint="was the network edited after the adapter was attached?",
        )
    with torch.no_grad():
        for name, tensor in state.items():
            if tensor is not values[name] and tensor.data_ptr() != values[name].data_ptr():
                tensor.copy_(values[name])
    return wrapped


def _check(network: nn.Module, wrapped: PeftModel, folder: Path) -> None:
    """Let peft read the folder, and compare every tensor of the network."""
    plain = without_adapter(network)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        again = PeftModel.from_pretrained(plain, str(folder))
    actual = state_of(inner_of(again))
    for name, tensor in state_of(network).items():
        reread = actual.get(name)
        if reread is None or not torch.equal(reread.to(tensor.device), tensor):
            raise ExportError(
                f"peft reads {name} back with other values", hint="this adapter cannot be exported; keep the artifact"
            )


def edits_before(network: nn.Module) -> list[str]:
    """List the operations that edited a network before its adapter was attached: peft needs a base edited alike."""
    record = record_of(network)
    names = [str(operation["op"]) for past in (record.surgeries if record else ()) for operation in past.operations]
    return names[: names.index("peft")] if "peft" in names else names


def _base_of(network: nn.Module) -> str | None:
    """Return what the network was made from; None if that is not recorded."""
    record = record_of(network)
    if record is None or not record.surgeries:
        return None
    first = record.surgeries[0].source
    return None if first is None or first.startswith("memory") else str(first)
