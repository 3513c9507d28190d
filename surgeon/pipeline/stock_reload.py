"""Check whether plain ``from_pretrained`` of the result gives the same network.

Class and shapes alone do not show that. A config may read the names of its classes from another field than the one
that was set (TimmWrapper's ``label_names``). A layer may compute a constant from its position when it is built (GPT-2's
``scale_attn_by_inverse_layer_idx``, DiffLlama's λ): a network that lost blocks keeps the old constant, but a network
built from the config has another. So every setting of every module is compared; if some differ, both networks run on
the same random values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from surgeon.architectures.same_structure import settings_of
from surgeon.errors import OperationError
from surgeon.families.transformers.fields import MUTABLE
from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.tensors import fill, tensors_of
from surgeon.pipeline.reference_outputs import output_tensors
from surgeon.surgery.inspection import Inspection

SMALL = 2**27
"""Up to this many bytes of tensors, networks with different settings are run."""
TOLERANCE = 1e-4


def stock_difference(model: nn.Module, rebuilt: nn.Module, inputs: Any = None) -> str:
    """Return what differs between a network and the one that its config builds; empty if nothing does.

    Args:
        model: The network, or its skeleton.
        rebuilt: The skeleton that the config builds, with the same names and shapes.
        inputs: The recipe's override of the traced inputs.
    """
    names, read_names = (getattr(getattr(m, "config", None), "id2label", None) for m in (model, rebuilt))
    if names and names != read_names:
        return f"its classes would be {', '.join(map(str, list((read_names or {}).values())[:3]))}, …"
    setting = next(_differing_settings(model, rebuilt), "")
    if not setting:
        return ""
    return "" if _outputs_are_same(model, rebuilt, inputs) else setting


def library_difference(model: nn.Module, rebuilt: nn.Module, inputs: Any = None) -> str:
    """Return what differs from the network that a provider's library builds; empty if nothing does.

    Like :func:`stock_difference`. In addition, modules of other classes than the library's count as a difference of
    settings, and modules and hooks that the library's network lacks are never accepted.

    Args:
        model: The network, or its skeleton.
        rebuilt: The skeleton that the provider builds, with the same names and shapes.
        inputs: The recipe's override of the traced inputs.
    """
    modules, rebuilt_modules = (dict(tree.named_modules(remove_duplicate=False)) for tree in (model, rebuilt))
    if extra := modules.keys() ^ rebuilt_modules.keys():
        return f"{min(extra)} is in one of them only"
    for name, module in modules.items():
        if _hooks(module) != _hooks(rebuilt_modules[name]):
            return f"{name or 'the network'} has hooks"
        if type(module) is not type(rebuilt_modules[name]) and not _outputs_are_same(model, rebuilt, inputs):
            return f"{name or 'the network'} is a {type(module).__name__}, not a {type(rebuilt_modules[name]).__name__}"
    return stock_difference(model, rebuilt, inputs)


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def _differing_settings(model: nn.Module, rebuilt: nn.Module) -> Iterator[str]:
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in rebuilt.named_modules(remove_duplicate=False):
        if path not in modules:
            yield f"{path} is missing"
            continue
        settings, rebuilt_settings = settings_of(modules[path], MUTABLE), settings_of(module, MUTABLE)
        for name in rebuilt_settings:
            if name in settings and settings[name] != rebuilt_settings[name]:
                where = f"{path}.{name}".lstrip(".")
                yield f"{where} is {settings[name]}, but {rebuilt_settings[name]} if built from the config"


def _outputs_are_same(model: nn.Module, rebuilt: nn.Module, inputs: Any) -> bool:
    """Return whether a small network gives the same outputs as the rebuilt one; False for a large one."""
    size = sum(tensor.nbytes for _, tensor in tensors_of(model))
    return size <= SMALL and _same_outputs(skeleton_of(model), skeleton_of(rebuilt), inputs)


def _same_outputs(model: nn.Module, rebuilt: nn.Module, inputs: Any) -> bool:
    """Return whether two skeletons give the same outputs in eval mode on random values; False if neither runs."""
    generator = torch.Generator().manual_seed(0)
    values = {name: _value(name, tensor, generator) for name, tensor in tensors_of(rebuilt)}
    if values.keys() != dict(tensors_of(model)).keys():
        return False
    for network in (model, rebuilt):
        fill(network.eval(), lambda name: values[name].clone())
    try:
        candidates = list(Inspection(rebuilt, inputs=inputs).inputs().candidates())
    except OperationError:
        return False
    for fed in candidates:
        dtype = next((p.dtype for p in rebuilt.parameters() if p.is_floating_point()), torch.float32)
        args, kwargs = fed.tensors("cpu", dtype)
        results = []
        try:
            for network in (rebuilt, model):
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    results.append(dict(output_tensors(network(*args, **kwargs))))
        except Exception:  # a network may raise anything on inputs that do not fit it
            continue
        first, second = results
        return first.keys() == second.keys() and all(
            torch.allclose(first[n].double(), second[n].double(), TOLERANCE, TOLERANCE, equal_nan=True) for n in first
        )
    return False


def _value(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.dim() > 1:
        noise = noise * max(tensor[0].numel(), 1) ** -0.5
    elif name.endswith(("weight", "running_var")):
        noise = 1 + 0.1 * noise.tanh()
    return noise.to(tensor.dtype)
