"""The stages that every operation goes through, and what has to hold after each."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surgeon
from surgeon.architectures.identify import identify
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.graph.roles import ROLES
from surgeon.graph.tensors import tensors_of
from surgeon.nn.frozen import Frozen
from surgeon.plugins import load as load_plugins
from zoo.reasons import reason_of
from zoo.recipes import Case, NoMeaningError, case
from zoo.results import OPERATIONS, Result
from zoo.subjects import MAIN, Subject, build
from zoo.tensors import differing, network_tensors, same, tensors_in, training_loss

HEADLESS = ("ClvpModelForConditionalGeneration", "LightGlueForKeypointMatching", "OmDetTurboForObjectDetection")
"""Classes named as if they had a head over classes, that compare words with sounds or pictures, or points."""


class WrongError(Exception):
    """A result that is not what was promised."""


def examine(
    name: str,
    folder: Path,
    report: Callable[[Result], None],
    until: str = "step",
    operations: Sequence[str] = OPERATIONS[2:],
) -> None:
    """Put one network through operations, and report the results one by one.

    Args:
        name: As in the catalog.
        folder: Where artifacts may be written.
        report: Takes each result.
        until: The last of the stages to go through.
        operations: Which, beside building and inspecting it.
    """
    torch.set_num_threads(1)
    gc.freeze()
    started = time.monotonic()

    def record(operation: str, outcome: Any, stage: str = "", reason: str = "", note: str = "") -> None:
        nonlocal started
        now = time.monotonic()
        report(Result(name, operation, outcome, stage, reason, round(now - started, 2), note))
        started = now

    try:
        subject = build(name)
    except Exception as error:
        record("build", "failed", "", reason_of(error))
        return
    record("build", "ok", note=subject.note)
    try:
        record("inspect", "ok", note=_inspect(subject))
    except Exception as error:
        record("inspect", "failed", "", reason_of(error))
        if subject.trace is None or subject.roles is None:
            return
    for operation in operations if until != "inspect" else ():
        if operation == "identify" and not name.startswith("torchvision/"):
            continue
        stage = ["plan"]
        gc.collect()  # networks and their hooks refer to one another
        try:
            if operation == "identify":
                stage = [""]
                record(operation, "ok", note=_identify(subject))
            else:
                note = _run(subject, case(subject, operation), folder / "artifact", stage, until)
                record(operation, "ok", note=note)
        except NoMeaningError as error:
            record(operation, "no meaning", stage[-1], str(error))
        except Exception as error:
            record(operation, "failed", stage[-1], reason_of(error))


def _inspect(subject: Subject) -> str:
    subject.look()
    assert subject.roles is not None
    assert subject.trace is not None
    sites = {role: subject.roles.sites(role) for role in ROLES}
    if not sites["stem"]:
        raise WrongError("found no stem")
    if _has_head(subject) and not sites["head"]:
        raise WrongError("found no head")
    blocks = len(sites["blocks"])
    return f"{subject.trace.evidence}; {blocks} blocks; head {', '.join(sites['head']) or '-'}"


def _has_head(subject: Subject) -> bool:
    from surgeon.families.transformers.heads import has_head

    cls = type(subject.module).__name__
    return subject.name.startswith("torchvision/") or (has_head(cls) and cls not in HEADLESS)


def _identify(subject: Subject) -> str:
    """From the names and shapes of its tensors alone; a true twin is named beside it."""
    expected = subject.name.partition("/")[2]
    tensors = subject.module.state_dict()
    match = identify(memory_checkpoint(tensors), load_plugins().architectures())
    if match.architecture.name == expected:
        return ""
    twins = [note for note in match.notes if expected in note]
    if not twins:
        raise WrongError(f"identified as {match.architecture.name}")
    return twins[0]


def _run(subject: Subject, wanted: Case, path: Path, stages: list[str], until: str) -> str:
    """Plan, apply, save, load and train; ``stages`` ends with the one that is under way. Returns a remark."""
    if until == "plan":
        surgeon.plan(subject.module, wanted.operations)
        return ""
    try:  # applying begins with the same plan
        model = surgeon.apply(subject.module, wanted.operations)
    except Exception:
        surgeon.plan(subject.module, wanted.operations)
        stages.append("apply")
        raise
    stages.append("apply")
    _check_kept(subject, model)
    output = _flat(subject.forward(model))
    _check_outputs(subject, wanted, model, output)
    if until == "apply":
        return ""
    stages.append("save")
    surgeon.save(model, path, force=True)
    stages.append("load")
    loaded = surgeon.load(path)
    _check_loaded(model, loaded)
    if different := differing(output, _flat(subject.forward(loaded))):
        raise WrongError(f"the loaded network gives another {different[0]}")
    del model
    stages.append("step")
    return _trained(subject, wanted, loaded)


def _flat(output: Any) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors_in(output)}


def _check_kept(subject: Subject, model: nn.Module) -> None:
    record = surgeon.record_of(model)
    if record is None:
        raise WrongError("the network has no record")
    source, now = dict(tensors_of(subject.module)), dict(tensors_of(model))
    kept = record.surgeries[-1].kept
    if different := differing({n: now[n] for n in kept}, {n: source[old] for n, old in kept.items()}):
        raise WrongError(f"a kept tensor differs: {different[0]}")
    if any(tensor.is_meta for tensor in network_tensors(model).values()):
        raise WrongError("a tensor has no values")


def _check_outputs(subject: Subject, wanted: Case, model: nn.Module, output: Mapping[str, Tensor]) -> None:
    if wanted.ends_at is not None:
        features = subject.features(wanted.ends_at, wanted.later)
        if len(output) != 1 or differing({"": next(iter(output.values()))}, {"": features}):
            raise WrongError(f"the features at {wanted.ends_at} are not those of the whole network")
    for frozen in ((), _frozen_in(model)):
        try:
            with subject.frozen(frozen):
                _check_own(subject, wanted, output)
            return
        except WrongError:
            if frozen or not _frozen_in(model):  # torch.matmul rounds otherwise where a weight takes no gradient
                raise


def _frozen_in(model: nn.Module) -> set[str]:
    """The parameters of the network before surgery that take no gradient in what has become of it."""
    return {n.removeprefix("columns.0.") for n, p in model.named_parameters() if not p.requires_grad}


def _check_own(subject: Subject, wanted: Case, output: Mapping[str, Tensor]) -> None:
    if wanted.first_task is not None:
        _check_first_task(subject, wanted.first_task, output)
    elif wanted.keeps:
        for name, tensor in subject.own_outputs().items():
            _check_same(name, tensor, output.get(name, _under_a_name(output, name)))


def _check_first_task(subject: Subject, task: str, output: Mapping[str, Tensor]) -> None:
    """The main tensor has the task's name; what has none comes out whole below it."""
    main = subject.own_main()
    if main is not None:
        _check_same("", main, output.get(task))
        return
    for name, tensor in subject.own_outputs().items():
        _check_same(name, tensor, output.get(f"{task}.{name}"))


def _under_a_name(output: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A lone tensor, or a list, among several outputs has one of these names."""
    paths = [f"{output_name}.{name}".rstrip(".") for output_name in ("logits", "features")]
    return next((output[path] for path in paths if path in output), None)


def _check_same(name: str, before: Tensor, after: Tensor | None) -> None:
    if after is None:
        raise WrongError(f"the network's own output {name or '.'} is gone")
    if not same(before, after):
        raise WrongError(f"the network's own output {name or '.'} changed")


def _check_loaded(model: nn.Module, loaded: nn.Module) -> None:
    if different := differing(network_tensors(model), network_tensors(loaded)):
        raise WrongError(f"the loaded network differs in {different[0]}")
    flags = [{n: p.requires_grad for n, p in m.named_parameters()} for m in (model, loaded)]
    if flags[0] != flags[1]:
        raise WrongError("what trains is not the same after loading")
    if type(model).__name__ != type(loaded).__name__:
        raise WrongError(f"loads as a {type(loaded).__name__}")


def _trained(subject: Subject, wanted: Case, model: nn.Module) -> str:
    """A step, in eval mode where the network itself, before surgery, cannot make one on these inputs."""
    try:
        _step(subject, model)
        return ""
    except Exception:
        trouble = _own_trouble(subject, wanted, model, training=True)
        if not trouble:
            raise
        if _own_trouble(subject, wanted, model, training=False):
            raise NoMeaningError(f"the network itself cannot be trained on this: {trouble}") from None
    _step(subject, model, training=False)
    return f"stepped in eval mode, since in training the network itself does not: {trouble}"


def _own_trouble(subject: Subject, wanted: Case, model: nn.Module, *, training: bool) -> str:
    """Why the network before surgery cannot make the step that ``model`` failed to make; empty where it can."""
    if wanted.first_task is None:
        return subject.trouble_in_step(wanted.ends_at, _frozen_in(model), training=training)
    # a new column trains all that it has, but for what is fed into sites through which no gradient flows
    fed = [subject.trouble_in_step(site, (), training=training) for site in model.sites[-1]]  # type: ignore[union-attr, index]
    return subject.trouble_in_step(MAIN, (), training=training) or (fed[0] if all(fed) else "")


def _step(subject: Subject, model: nn.Module, *, training: bool = True) -> None:
    """One step of gradient descent: what is frozen stays as it is, the rest moves."""
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, Frozen):
            frozen |= {f"{prefix}.{n}": b.clone() for n, b in module._buffers.items() if b is not None}
    model.train(training)
    trainable = [p for p in model.parameters() if p.requires_grad]
    loss = training_loss(subject.forward(model, training=True))
    loss.backward()
    if not torch.isfinite(loss):
        raise WrongError("the loss is not finite")
    reached = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    torch.optim.SGD(trainable, lr=1e-2).step()
    now = network_tensors(model)
    if moved := [n for n, t in frozen.items() if differing({n: t}, {n: now[n]})]:
        raise WrongError(f"a frozen tensor moved: {moved[0]}")
    record = surgeon.record_of(model)
    made = record.surgeries[-1].made if record else {}
    heads: dict[str, bool] = {}
    for name, parameter in model.named_parameters():
        # a copied column has what its source has; a detector's step need not reach every level of its head
        if name in made and parameter.requires_grad and not name.startswith("columns."):
            head = ".".join(name.split(".")[:2]) if name.startswith("grafts.") else ""
            heads[head] = heads.get(head, False) or name in reached
    if still := [head for head, moves in heads.items() if not moves]:
        raise WrongError(f"what is new at {still[0] or 'the head'} gets no gradient")
    if not reached:
        raise WrongError("nothing moved")
