"""Check operations against surgeon's promises, on a network of the author's choice."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from surgeon.interfaces.operation import Operation
from surgeon.interfaces.registered import registered
from surgeon.interfaces.returned import is_ours
from surgeon.nn.frozen import Frozen
from surgeon.pipeline.api import apply, load, plan, save


def check_operations(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
) -> nn.Module:
    """Apply ``operations`` to the network that ``build`` makes, and check surgeon's promises.

    The input network is unchanged. Every tensor is accounted for and kept ones are byte-identical. The same seed gives
    the same values. A copy and a reloaded artifact give equal outputs. A training step changes trainable tensors and no
    frozen ones.

    Args:
        build: Makes the network, the same one on each call.
        operations: The operations.
        args: Positional arguments of a forward of the edited network.
        kwargs: Keyword arguments of the forward.
        loss: Computes a scalar from the edited network, if its training forward needs other arguments (a detector needs
            targets). Default: the mean square of its outputs.

    Returns:
        The edited network in eval mode, before the training step.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    with registered(*{type(operation): None for operation in operations if not is_ours(operation)}):
        return _checked(build, operations, args, dict(kwargs or {}), loss)


def _checked(
    build: Callable[[], nn.Module],
    operations: Sequence[Operation],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    loss: Callable[[nn.Module], torch.Tensor] | None,
) -> nn.Module:
    model = build().eval()
    before = copy.deepcopy(model.state_dict())
    edited = apply(model, operations, seed=1).eval()
    _same_state(model.state_dict(), before, "the input network was changed")
    again = apply(model, operations, seed=1).eval()
    _same_state(edited.state_dict(), again.state_dict(), "the same seed gave other values")
    for fact in plan(model, operations).tensors:
        if fact.origin == "kept" and not torch.equal(edited.state_dict()[fact.name], before[str(fact.source)]):
            raise AssertionError(f"{fact.name} should be kept, but its values differ from {fact.source}")
    expected = _run(edited, args, kwargs)
    _same_output(_run(copy.deepcopy(edited), args, kwargs), expected, "a deepcopy")
    with tempfile.TemporaryDirectory() as folder:
        path = save(edited, Path(folder) / "artifact")
        reloaded = load(path, arch=build)
        _same_state(reloaded.state_dict(), edited.state_dict(), "saving and loading changed values")
        _same_output(_run(reloaded, args, kwargs), expected, "the reloaded artifact")
    _check_training_step(copy.deepcopy(edited), args, kwargs, loss)
    return edited


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = model(*args, **kwargs)
    return [leaf for leaf in _pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _check_training_step(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    loss: Callable[[nn.Module], torch.Tensor] | None,
) -> None:
    model.train()
    before = copy.deepcopy(model.state_dict())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    if loss is not None:
        value = loss(model)
    else:
        leaves = _pytree.tree_leaves(model(*args, **kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        if not tensors:
            raise AssertionError("no output of the edited network depends on a trainable parameter")
        value = torch.stack([tensor.float().pow(2).mean() for tensor in tensors]).sum()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if not isinstance(module, Frozen)
        for name in module._buffers
    }
    aliases = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    wrong = changed - trainable - aliases - statistics
    if wrong:
        raise AssertionError(f"a training step changed frozen tensors: {sorted(wrong)[:5]}")
    if not changed & trainable:
        raise AssertionError("a training step changed nothing")


def _same_state(actual: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], complaint: str) -> None:
    if actual.keys() != expected.keys():
        raise AssertionError(f"{complaint}: {sorted(actual.keys() ^ expected.keys())[:5]}")
    for name, tensor in expected.items():
        if not torch.equal(actual[name], tensor):
            raise AssertionError(f"{complaint}: {name}")


def _same_output(actual: list[torch.Tensor], expected: list[torch.Tensor], what: str) -> None:
    if len(actual) != len(expected) or not all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(actual, expected, strict=True)
    ):
        raise AssertionError(f"{what} gives other outputs")
