"""Check on random values that removing units is the same as silencing them.

A module is run twice: with zeros where layers read the units that go, and without these units. The outputs must agree.
So a layout of heads, an order of channels or an operation between them that nothing here knows of leads to a refusal,
never to a network that computes something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils import _pytree

from surgeon.graph.skeleton import skeleton_of
from surgeon.graph.tensors import fill, tensors_of
from surgeon.nn.features import main_tensor
from surgeon_prune.calls import Arguments, Calls
from surgeon_prune.groups import READS, Group, prune_copy

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery

TOLERANCE = 1e-3
"""How far outputs may be apart, relative to the largest one, in float32."""


def refusals(surgery: Surgery, calls: Calls, groups: Sequence[Group]) -> list[str]:
    """Check groups on random values: those of one site together, and one site of each kind.

    Returns:
        For each group, why it cannot be pruned; empty if it can.
    """
    reasons = [""] * len(groups)
    reasons_of: dict[Any, list[str]] = {}
    for site in dict.fromkeys(group.site for group in groups):
        numbers = [number for number, group in enumerate(groups) if group.site == site]
        site_groups = [groups[number] for number in numbers]
        kind = tuple(_kind(surgery.model, group) for group in site_groups)
        if kind not in reasons_of:
            module, arguments = surgery.model.get_submodule(site), calls.of(site, "cpu")
            together = _refusal(module, site_groups, arguments)
            reasons_of[kind] = [_refusal(module, [group], arguments) if together else "" for group in site_groups]
            if together and not any(reasons_of[kind]):
                reasons_of[kind] = [together] * len(site_groups)
        for number, reason in zip(numbers, reasons_of[kind], strict=True):
            reasons[number] = reason
    return reasons


def _kind(model: nn.Module, group: Group) -> Any:
    """Return what groups have in common of which one is checked for all."""
    module = model.get_submodule(group.site)
    slices = tuple(
        (entry.tensor.removeprefix(group.site), entry.axis, entry.size, None if entry.units is None else group.site)
        for entry in group.slices
    )
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in module.named_parameters())
    return type(module), module.extra_repr(), group.count, slices, shapes


def _refusal(module: nn.Module, groups: Sequence[Group], arguments: Arguments) -> str:
    """Say how a module without units differs from one with silent units; empty if it does not."""
    site = groups[0].site
    generator = torch.Generator().manual_seed(0)
    whole, cut = skeleton_of(module).float().eval(), skeleton_of(module).float().eval()
    values = {name: _value(name, tensor, generator) for name, tensor in tensors_of(whole)}
    silent = dict(values)
    for group in groups:
        assert group.kept is not None
        for entry in group.slices:
            name = entry.tensor.removeprefix(f"{site}.")
            if entry.role == READS and name in silent:
                value = silent[name]
                stays = entry.indices(value.shape[entry.axis], group.count, group.kept)
                removed = sorted(set(range(value.shape[entry.axis])) - set(stays))
                silent[name] = value.index_fill(entry.axis, torch.tensor(removed, dtype=torch.long), 0.0)
    where = f"{site or 'the network'} ({type(module).__name__})"
    fill(whole, lambda name: silent[name])
    try:
        expected = _run(whole, arguments)
        prune_copy(cut, site, groups, values)
        fill(cut, lambda name: values[name].clone())
        actual = _run(cut, arguments)
    except Exception as error:  # the module's own code, on widths that it may not expect
        return f"{where} does not run without them: {' '.join(str(error).split())[:160] or type(error).__name__}"
    limit = TOLERANCE * max(1.0, float(expected.abs().max()))
    if actual.shape == expected.shape and float((actual - expected).abs().max()) <= limit:
        return ""
    return (
        f"{where} computes something else without units than with silent ones: units influence each other there, or "
        "lie in an order that is not known"
    )


def _run(module: nn.Module, arguments: Arguments) -> torch.Tensor:
    args, kwargs = _pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, arguments)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = main_tensor(module(*args, **kwargs))
    assert output is not None
    return output.float()


def _value(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    noise = torch.randn(tensor.shape, generator=generator)
    if tensor.dim() > 1:
        noise = noise * max(tensor[0].numel(), 1) ** -0.5
    elif name.endswith("running_var"):
        noise = 1 + 0.1 * noise.tanh()
    elif name.endswith("weight"):
        noise = 1 + 0.3 * noise.tanh()
    return noise
