"""Check a training step: what gets a gradient, what changes, and what must not."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from surgeon.interfaces.composite import composite_of
from surgeon.interfaces.returned import is_ours
from surgeon.nn.frozen import Frozen
from surgeon.surgery.module_state import INTERNAL
from surgeon.testing.runs import Case, copied, few, tensors_in
from surgeon.testing.trees import check_tensors

STEPS = 4
"""How many steps are taken until every new parameter has had a gradient."""


def check_training_step(case: Case) -> None:
    """Train a copy for some steps.

    Raises:
        AssertionError: A new or trainable parameter gets no gradient, a frozen tensor changes, or a module keeps what
            no state dict has; the message says how to mend it.
    """
    model = copy.deepcopy(case.edited).train()
    before = copy.deepcopy(model.state_dict())
    hidden = {name: buffer.clone() for name, buffer in _non_persistent(model)}
    settings = {site: _plain(model.get_submodule(site)) for site in case.added()}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise AssertionError("no parameter of the edited network trains: unfreeze some, or add some")
    ran, moved = _step(model, case)
    _check_gradients(model, case, trainable, ran)
    _check_changes(model, before, trainable)
    _check_hidden(model, case, hidden, settings)
    for _ in range(STEPS - 1):
        if case.new & trainable <= moved:
            break
        moved |= _step(model, case)[1]
    _check_gradients_move(case, trainable - moved)


def _step(model: nn.Module, case: Case) -> tuple[set[str], set[str]]:
    """Take one step and return the sites that ran, and the parameters whose gradient is not zero."""
    ran: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, args, at=name: ran.add(at))
        for name, module in model.named_modules()
    ]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    optimizer.zero_grad()
    _loss(model, case).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    for handle in handles:
        handle.remove()
    return ran, {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}


def _check_gradients_move(case: Case, still: set[str]) -> None:
    """Refuse new parameters whose gradient stays zero; a factor that begins with zero delays others by a step only."""
    if dead := sorted(name for name in still if name in case.new):
        raise AssertionError(
            f"the gradient of {few(dead)} is zero in each of {STEPS} steps: its module runs and plays no part. Is its "
            "result multiplied by zero, rounded, compared, or overwritten?"
        )


def _check_hidden(
    model: nn.Module, case: Case, buffers: dict[str, torch.Tensor], settings: dict[str, dict[str, Any]]
) -> None:
    """Refuse what training changed and no state dict has."""
    for name, buffer in _non_persistent(model):
        if name in buffers and not torch.equal(buffer, buffers[name]) and name.rpartition(".")[0] in settings:
            raise AssertionError(
                f"{name} is a buffer that training changes, but no state dict has it, so that a saved network forgets "
                "it. Register it with persistent=True."
            )
    for site, values in settings.items():
        module = model.get_submodule(site)
        if is_ours(module):
            continue
        check_tensors(site, module)
        for name, value in _plain(module).items():
            if name in values and value != values[name]:
                raise AssertionError(
                    f"{site}.{name} was {values[name]!r} before training and is {value!r} after a step: it is a "
                    "plain attribute, which no state dict has. Use a buffer: "
                    f"self.register_buffer({name!r}, torch.tensor(…))."
                )


def _plain(module: nn.Module) -> dict[str, Any]:
    kinds = (bool, int, float, str)
    return {name: v for name, v in vars(module).items() if isinstance(v, kinds) and name not in INTERNAL}


def _loss(model: nn.Module, case: Case) -> torch.Tensor:
    if case.loss is not None:
        return case.loss(model)
    args, kwargs = copied(case.arguments)
    tensors = [tensor for tensor in tensors_in(model(*args, **kwargs)) if tensor.requires_grad]
    if not tensors:
        raise AssertionError(
            "no output of the edited network depends on a trainable parameter: everything is frozen, or a detach() or "
            "no_grad() cuts off the gradient"
        )
    # not the outputs' own squares, which have no gradient where a head begins with zeros
    draw = torch.Generator().manual_seed(0)
    targets = [torch.randn(tensor.shape, generator=draw) for tensor in tensors]
    return torch.stack([(t.float() - u).pow(2).mean() for t, u in zip(tensors, targets, strict=True)]).sum()


def _check_gradients(model: nn.Module, case: Case, trainable: set[str], ran: set[str]) -> None:
    parameters = dict(model.named_parameters())
    beside = _not_chosen(model, ran)
    without = [name for name in sorted(trainable) if parameters[name].grad is None and not name.startswith(beside)]
    new = [name for name in without if name in case.new]
    idle = [name for name in new if name.rpartition(".")[0] not in ran]
    if idle:
        raise AssertionError(
            f"{few(idle)} never plays a part: its module does not run in a forward pass. attach() adds a module but "
            "calls it nowhere; use surgery.insert, branch or replace, or let another new module call it."
        )
    if new:
        raise AssertionError(
            f"{few(new)} gets no gradient, though its module runs: is it unused in forward, or behind detach(), "
            "no_grad() or .data? A parameter that is not to train is frozen: requires_grad=False where it is made."
        )
    sources = case.kept or {}
    lost = [name for name in without if name in sources]
    if lost and (reached := _reached_before(case)):
        detached = [name for name in lost if sources[name] in reached]
        if detached:
            raise AssertionError(
                f"no gradient reaches {few(detached)} any more, though it is not frozen: {case.names} cuts it off with "
                "detach(), no_grad() or .data. Freeze with surgery.freeze what is not to train."
            )


def _not_chosen(model: nn.Module, ran: set[str]) -> tuple[str, ...]:
    """List the prefixes of parts that a composite might have run and did not: it runs only some of its choices."""
    parts = [
        f"{site}.{choice}".lstrip(".")
        for site, module in model.named_modules()
        for choice in composite_of(module).choices
    ]
    return tuple(f"{part}." for part in parts if part not in ran)


def _reached_before(case: Case) -> set[str]:
    """The parameters that get a gradient in the original network; empty where it takes other inputs."""
    model = copy.deepcopy(case.original).train().requires_grad_(True)
    try:
        _loss(model, case).backward()  # type: ignore[no-untyped-call]
    except Exception:  # it takes other arguments than the edited one
        return set()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def _check_changes(model: nn.Module, before: dict[str, torch.Tensor], trainable: set[str]) -> None:
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if not isinstance(module, Frozen)
        for name in module._buffers
    }
    aliases = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    if wrong := changed - trainable - aliases - statistics:
        raise AssertionError(f"a training step changed frozen tensors: {sorted(wrong)[:5]}")
    if not changed & trainable:
        raise AssertionError("a training step changed nothing")


def _non_persistent(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [
        (f"{prefix}.{name}".lstrip("."), module._buffers[name])
        for prefix, module in model.named_modules()
        for name in module._non_persistent_buffers_set
        if module._buffers.get(name) is not None
    ]
