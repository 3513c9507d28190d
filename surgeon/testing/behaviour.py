"""Check how an edited network computes: by sample, in both modes, in half precision, with NaN among its inputs.

Each check asks the original network first: what that does not keep to, the edited one need not.
"""

from __future__ import annotations

import torch
from torch import nn

from surgeon.nn.frozen import Frozen
from surgeon.testing.global_state import difference, read_state, restore
from surgeon.testing.runs import Arguments, Case, batch_of, close, few, mapped, run, same, tensors_in, try_run


def check_modes(case: Case) -> None:
    """Put the edited network into both modes, and run it in each: modes stay as they were set.

    Raises:
        AssertionError: It is not so, though it was so of the original; the message says how to mend it.
    """
    case = case.again()
    before = {name for name, module in case.original.train().named_modules() if not module.training}
    for mode in (True, False):
        case.edited.train(mode)
        if mode:
            _refuse_modes(case.edited, before, mode, "train()")
        try_run(case.edited, case.arguments)
        _refuse_modes(case.edited, before, mode, "a forward pass")


def _refuse_modes(model: nn.Module, before: set[str], mode: bool, after: str) -> None:
    before = before | _frozen(model)  # a part of which nothing trains, such as an earlier column, may stay in eval mode
    wrong = [
        name
        for name, module in model.named_modules()
        if module.training is not mode and not isinstance(module, Frozen) and not (mode and _under(name, before))
    ]
    if wrong:
        now, then = ("eval", "train") if mode else ("train", "eval")
        raise AssertionError(
            f"after {after}, {few([name or 'the network' for name in wrong])} {'is' if len(wrong) == 1 else 'are'} in "
            f"{now} mode, though the network is in {then} mode: something calls {now}() or overrides train(). Leave "
            "modes alone, and read self.training; surgery.freeze makes norms stay in eval mode."
        )


def _frozen(model: nn.Module) -> set[str]:
    """List the modules that have parameters, none of which trains, and empty containers, whose mode says nothing."""
    parameters = {name: [p.requires_grad for p in module.parameters()] for name, module in model.named_modules()}
    empty = {name for name, m in model.named_modules() if isinstance(m, (nn.ModuleDict, nn.ModuleList)) and not len(m)}
    return empty | {name for name, trains in parameters.items() if trains and not any(trains)}


def _under(name: str, sites: set[str]) -> bool:
    return any(not site or name == site or name.startswith(f"{site}.") for site in sites)


def check_chance(case: Case) -> None:
    """Run the edited network twice in eval mode under other seeds.

    Raises:
        AssertionError: It is not so, though it was so of the original; the message says how to mend it.
    """
    first, second = (run(case.edited, case.arguments, seed) for seed in (0, 1))
    if same(first, second):
        return
    original = [try_run(case.original, case.arguments, seed) for seed in (0, 1)]
    if original[0] is not None and original[1] is not None and not same(original[0], original[1]):
        return
    raise AssertionError(
        f"in eval mode, {case.names} makes outputs random: two forward passes differ. Is dropout left on? Use "
        "nn.Dropout, or F.dropout(x, p, training=self.training)."
    )


def check_batches(case: Case) -> None:
    """Run each sample of a batch alone: any batch size runs, and gives the same outputs.

    Raises:
        AssertionError: It is not so, though it was so of the original; the message says how to mend it.
    """
    count = batch_of(case.arguments)
    if count is None:
        return
    arguments = case.arguments if count > 1 else mapped(case.arguments, lambda tensor: torch.cat([tensor, tensor]))
    count = max(count, 2)
    batch = _run_batch(case, arguments, count)
    for index in range(min(count, 2)):
        alone = mapped(arguments, lambda tensor, at=index: tensor[at : at + 1])  # type: ignore[misc]
        single = _run_batch(case, alone, 1)
        if batch is None or single is None:
            return
        _refuse_other_rows(case, batch, single, arguments, alone)
        pairs = [
            (a[index : index + 1], b)
            for a, b in zip(batch, single, strict=False)
            if a.ndim and b.ndim and len(a) == count and len(b) == 1
        ]
        if not all(close(a, b) for a, b in pairs) and _keeps_apart(case.original, arguments, alone, index):
            raise AssertionError(
                f"{case.names} mixes the samples of a batch: in eval mode, sample {index} of {count} has another "
                "output than the same sample alone. Reduce over features, never over the first dimension."
            )


def _refuse_other_rows(
    case: Case, batch: list[torch.Tensor], single: list[torch.Tensor], arguments: Arguments, alone: Arguments
) -> None:
    """Refuse an output that has a row for each sample of a batch, and not one row for one sample."""
    count = len(tensors_in(arguments)[0])
    before = zip(try_run(case.original, arguments) or (), try_run(case.original, alone) or (), strict=False)
    if not all(a.ndim and b.ndim and (len(a), len(b)) == (count, 1) for a, b in before):
        return
    for a, b in zip(batch, single, strict=False):
        if a.ndim and b.ndim and len(a) == count and len(b) != 1:
            raise AssertionError(
                f"for one sample, {case.names} gives an output of {len(b)} rows. Is a batch size fixed in it? Take it "
                "from the input: x.shape[0], flatten(1)."
            )


def _run_batch(case: Case, arguments: Arguments, count: int) -> list[torch.Tensor] | None:
    try:
        return run(case.edited, arguments)
    except Exception as error:
        if try_run(case.original, case.arguments) is not None and try_run(case.original, arguments) is None:
            return None
        reason = " ".join(str(error).split())[:200]
        raise AssertionError(
            f"the edited network runs on the given inputs, but not on a batch of {count} ({type(error).__name__}: "
            f"{reason}). Is a batch size fixed in {case.names}? Take it from the input: x.shape[0], flatten(1)."
        ) from error


def _keeps_apart(model: nn.Module, batch: Arguments, alone: Arguments, index: int) -> bool:
    """Whether the original's outputs of a sample do not depend on the others; true where it takes other inputs."""
    outputs, single = try_run(model, batch), try_run(model, alone)
    if outputs is None or single is None:
        return True
    return all(
        close(a[index : index + 1], b)
        for a, b in zip(outputs, single, strict=False)
        if a.ndim and b.ndim and len(b) == 1 and len(a) > 1
    )


def check_nan(case: Case) -> None:
    """Feed NaN: where the original network passes it on, the edited one does.

    Raises:
        AssertionError: It is not so, though it was so of the original; the message says how to mend it.
    """
    case = case.again()
    arguments = case.arguments
    if any(tensor.is_floating_point() for tensor in tensors_in(arguments)):
        arguments = mapped(arguments, lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t)
    else:
        poisoned = [_poison(model) for model in (case.original, case.edited)]
        if not all(poisoned):
            return
    before, after = try_run(case.original, arguments), try_run(case.edited, arguments)
    if not before or not after or not _nan_in(before) or not all(_nan_in(before)):
        return
    if not all(_nan_in(after)):
        raise AssertionError(
            f"{case.names} hides NaN: the original network passes it on, the edited one returns finite numbers, so "
            "that a training that has failed looks well. Remove nan_to_num, and do not clamp or compare it away."
        )


def _nan_in(outputs: list[torch.Tensor]) -> list[bool]:
    """Say of each floating-point output whether it has a NaN."""
    return [bool(tensor.isnan().any()) for tensor in outputs if tensor.is_floating_point() and tensor.numel()]


def _poison(model: nn.Module) -> bool:
    """Fill the embeddings with NaN, for a network that takes no floating-point numbers; false where it has none."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    for embedding in embeddings:
        with torch.no_grad():
            embedding.weight.fill_(torch.nan)
    return bool(embeddings)


def check_half(case: Case) -> None:
    """Run the edited network in bfloat16.

    Raises:
        AssertionError: It is not so, though it was so of the original; the message says how to mend it.
    """
    case = case.again()
    arguments = mapped(case.arguments, lambda t: t.bfloat16() if t.is_floating_point() else t)
    before = try_run(case.original.bfloat16(), arguments)
    if before is None:
        return
    try:
        run(case.edited.bfloat16(), arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise AssertionError(
            f"the original network runs in bfloat16, the edited one does not ({type(error).__name__}: {reason}). Does "
            f"{case.names} make a tensor in float32? Use x.new_zeros, dtype=x.dtype, or a buffer."
        ) from error


def check_device(case: Case) -> None:
    """Run the edited network on another device: ``meta``, which computes shapes only.

    Raises:
        AssertionError: It does not run there, though the original does; the message says how to mend it.
    """
    case = case.again()
    arguments = mapped(case.arguments, lambda tensor: tensor.to("meta"))
    if try_run(case.original.to("meta"), arguments) is None:
        return
    try:
        run(case.edited.to("meta"), arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if "device" not in reason:  # it reads a value, which torch.compile and torch.export check
            return
        raise AssertionError(
            f"moved to another device, the edited network does not run ({type(error).__name__}: {reason}), though the "
            f"original does. Does {case.names} keep a tensor outside the network's parameters and buffers, or make one "
            "without device=x.device? Use register_buffer, x.new_zeros, torch.arange(…, device=x.device)."
        ) from error


def check_globals(case: Case) -> None:
    """Train and evaluate for one forward pass: torch's global state stays as it was.

    Raises:
        AssertionError: It does not; the message says how to mend it.
    """
    case = case.again()
    with torch.random.fork_rng(devices=[]):
        states = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            before = read_state()
            args, kwargs = mapped(case.arguments, lambda tensor: tensor.clone())
            try:
                case.edited.train()(*args, **kwargs)
            except Exception:  # in training it takes other arguments, such as targets
                return
            finally:
                changed, after = before != read_state(), read_state()
                restore(before)
            if changed:
                raise AssertionError(
                    f"a forward pass of {case.names} changes torch's global state ({difference(before, after)}): all "
                    "other code of the process is affected. Use it as a context: with torch.no_grad(): …"
                )
            states.append(torch.random.get_rng_state())
    if torch.equal(*states):
        raise AssertionError(
            f"a forward pass of {case.names} seeds torch's random numbers, so that all later draws of the process "
            "repeat. Leave seeds alone, or draw from a torch.Generator."
        )
