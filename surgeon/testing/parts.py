"""Check what plugins offer beside operations: providers, sources, losses, callbacks, families."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from surgeon.architectures.identify import build as build_skeleton_of
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.data.labels import present
from surgeon.errors import SiteError, SurgeonError
from surgeon.graph.sites import select
from surgeon.interfaces import offers
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.checked_provider import CheckedProvider
from surgeon.interfaces.data import Source
from surgeon.interfaces.family import Family
from surgeon.interfaces.splits import Splits
from surgeon.surgery.inspection import Inspection
from surgeon.testing.runs import close, few


def check_provider(provider: ArchitectureProvider, names: Sequence[str] | None = None) -> None:
    """Build networks of a provider, and find them again.

    Args:
        provider: The provider.
        names: The names to try. Default: the first three that it lists.

    Raises:
        AssertionError: A promise is broken; the message says which.
        SurgeonError: A method returned or raised something else than it should.
    """
    offers.architectures([provider])
    checked = CheckedProvider(provider)
    listed = checked.names()
    if len(set(listed)) != len(listed):
        raise AssertionError("names() lists a name twice")
    if not (chosen := list(names if names is not None else listed[:3])):
        raise AssertionError("names() is empty: pass some names to check")
    _check_unknown(checked, listed)
    for name in chosen:
        _check_network(checked, Architecture(scheme=provider.scheme, name=name))


def _check_unknown(provider: CheckedProvider, listed: Sequence[str]) -> None:
    name = f"no_{listed[0] if listed else 'name'}_of_this_kind"
    try:
        provider.build(Architecture(scheme=provider.scheme, name=name))
    except SurgeonError as error:
        if "raised" in error.message:
            raise AssertionError(
                f"build({name!r}) must raise an ArchitectureError; begin with self.require(architecture.name). "
                f"Now: {error.message}"
            ) from error
        return
    raise AssertionError(f"build() makes a network of the unknown name {name!r}: begin with self.require(…)")


def _check_network(provider: CheckedProvider, architecture: Architecture) -> None:
    located, _ = provider.locate(architecture.name, weights=False)
    if located != architecture:
        architecture = located
    model, again = provider.build(architecture), provider.build(architecture)
    if model is again or {id(p) for p in model.parameters()} & {id(p) for p in again.parameters()}:
        raise AssertionError(f"build({architecture}) gives the same network twice: make a new one on each call")
    state, skeleton = model.state_dict(), build_skeleton_of(provider, architecture)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()} != shapes:
        raise AssertionError(f"{architecture} has other tensors when it is built without memory, on the meta device")
    if real := [name for name, parameter in skeleton.named_parameters() if not parameter.is_meta]:
        raise AssertionError(f"{architecture}: {few(real)} is allocated even when built as a skeleton")
    named = provider.of_module(model)
    if named is not None and provider.build(named).state_dict().keys() != state.keys():
        raise AssertionError(f"of_module() names {named} with options {named.options}, which has other tensors")
    match = provider.identify(memory_checkpoint(state))
    if match is None:
        return
    identified = provider.build(match.architecture).state_dict()
    if {name: tuple(tensor.shape) for name, tensor in identified.items()} != shapes:
        raise AssertionError(f"identify() takes the tensors of {architecture} for {match.architecture}")
    if provider.identify(memory_checkpoint({"surgeon.no_such.weight": torch.ones(2, 3)})) is not None:
        raise AssertionError("identify() claims a file with a single tensor that none of its networks has: return None")


def check_family(family: Family, model: nn.Module, inputs: Any = None) -> None:
    """Compare the facts that a family declares with one of its networks.

    Args:
        family: The family.
        model: A network of one of its classes.
        inputs: What to run it on, as in a recipe's ``inputs:``. Default: what the family declares.

    Raises:
        AssertionError: A fact does not hold.
    """
    if not family.holds(model):
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        raise AssertionError(f"the family {family.name!r} does not cover {kind}: add it to classes")
    model = copy.deepcopy(model).eval()
    try:
        Inspection(model, inputs=inputs, families=[family]).trace()
    except SurgeonError as error:
        raise AssertionError(f"{type(model).__name__} does not run on what the family declares: {error}") from error
    for role in ("head", "aux", "stem", "blocks", "pool"):
        paths = getattr(family, role)
        if paths and not any(_exists(model, path) for path in paths):
            raise AssertionError(f"{role}={paths!r} of {family.name!r} names nothing in {type(model).__name__}")
    config = family.config
    if config is not None and config.attribute and not hasattr(model, config.attribute):
        raise AssertionError(f"{type(model).__name__} has no {config.attribute!r}, where config says its settings are")


def _exists(model: nn.Module, path: str) -> bool:
    try:
        return bool(select(model, path))
    except SiteError:
        return False


def check_source(source: Source) -> Splits:
    """Load the data of a source twice, and check what it gives.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    offers.sources([type(source)])
    again = type(source).model_validate(source.model_dump())
    if again != source:
        raise AssertionError("the fields of the source do not survive a recipe: they must be plain values")
    splits, second, reseeded = source.load(0), source.load(0), source.load(1)
    if not isinstance(splits, Splits):
        raise AssertionError(f"load(seed) returned a {type(splits).__name__}; expected surgeon.Splits")
    if not len(splits.train) or not len(splits.test):  # type: ignore[arg-type]
        raise AssertionError("load(seed) gives no samples to train on, or none to test on")
    for part in ("train", "test"):
        first = getattr(splits, part)[0]
        if not isinstance(first, dict) or not all(isinstance(value, Tensor) for value in first.values()):
            raise AssertionError(f"a sample of {part} must be a dict of tensors by column, got {type(first).__name__}")
        if missing := set(splits.inputs) - set(first):
            raise AssertionError(f"inputs name the columns {sorted(missing)}, which no sample of {part} has")
        if not set(first) - set(splits.inputs):
            raise AssertionError(f"every column of {part} is an input: none is left as a label")
    if not _same_samples(splits.train, second.train):
        raise AssertionError("load(0) gives other training samples the second time: draw from the seed")
    if not _same_samples(splits.test, reseeded.test):
        raise AssertionError("the test samples depend on the seed: choose them once, so that runs can be compared")
    if len(splits.train) >= 2:  # type: ignore[arg-type]
        splits.collate([splits.train[0], splits.train[1]])
    for label, count in splits.classes.items():
        worst = max(int(splits.train[i][label].max()) for i in range(len(splits.train)))  # type: ignore[arg-type]
        if worst >= count:
            raise AssertionError(f"{label} has the class {worst}, but classes says {count}")
    return splits


def _same_samples(one: Any, other: Any, count: int = 8) -> bool:
    if len(one) != len(other):
        return False
    pairs = ((one[i], other[i]) for i in range(min(count, len(one))))
    return all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)


def check_loss(
    loss: Callable[..., Tensor], prediction: Tensor, target: Tensor, *, missing: float | None = None, **options: Any
) -> None:
    """Check a loss on a batch.

    Args:
        loss: The loss.
        prediction: An output of a network, ``(batch, …)``, for at least two samples.
        target: Its labels.
        missing: The value of a missing label, -100 of classes and NaN of numbers; None if the loss need not know it.
        **options: Options of the loss, as in a recipe.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    count = len(prediction)
    if count < 2:
        raise AssertionError("pass a prediction for at least two samples")
    offers.losses({"loss": loss})
    leaf = prediction.detach().clone().requires_grad_(True)
    values = _values(loss, leaf, target, options)
    if values.shape != (count,):
        hint = "no mean over the batch: reduction='none', then a mean over all but the first dimension"
        raise AssertionError(f"the loss returned shape {tuple(values.shape)}; expected ({count},), {hint}")
    if not values.isfinite().all():
        raise AssertionError("the loss is not finite on the given batch")
    if not values.requires_grad:
        raise AssertionError("the loss has no gradient: is there a detach(), no_grad(), argmax or item() in it?")
    values.sum().backward()  # type: ignore[no-untyped-call]
    if leaf.grad is None or not leaf.grad.isfinite().all():
        raise AssertionError("the gradient of the loss is missing or not finite")
    if not leaf.grad.any():
        raise AssertionError("the gradient of the loss is zero everywhere: no network can learn from it")
    for index in range(count):
        alone = _values(loss, prediction[index : index + 1], target[index : index + 1], options)
        if not close(alone, values[index : index + 1].detach()):
            raise AssertionError("the loss of a sample depends on the other samples of its batch: reduce over features")
    same = _values(loss, prediction, target, options)
    if not close(same, values.detach()):
        raise AssertionError("the loss gives other values the second time")
    half = _values(loss, prediction.bfloat16(), target, options)
    if not half.isfinite().all():
        raise AssertionError("the loss of a prediction in bfloat16 is not finite: compute in prediction.float()")
    if missing is not None:
        _check_missing(loss, prediction, target, missing, values.detach(), options)


def _values(loss: Callable[..., Tensor], prediction: Tensor, target: Tensor, options: dict[str, Any]) -> Tensor:
    values: Any = loss(prediction, target, **options)
    if not isinstance(values, Tensor):
        raise AssertionError(f"the loss returned a {type(values).__name__}; expected a tensor (batch,)")
    return values


def _check_missing(
    loss: Callable[..., Tensor],
    prediction: Tensor,
    target: Tensor,
    missing: float,
    values: Tensor,
    options: dict[str, Any],
) -> None:
    gap = target.clone()
    gap[0] = missing
    if present(gap)[0].any():
        raise AssertionError(f"{missing} is not how a missing label is written: -100 of classes, NaN of numbers")
    leaf = prediction.detach().clone().requires_grad_(True)
    partly = _values(loss, leaf, gap, options)
    if not close(partly[1:].detach(), values[1:]):
        raise AssertionError("a missing label of one sample changes the loss of the others")
    partly.sum().backward()  # type: ignore[no-untyped-call]
    if bool(partly[0] != 0) or leaf.grad is None or not leaf.grad.isfinite().all() or leaf.grad[0].any():
        raise AssertionError("a sample without a label must have the loss 0 and no gradient")


def check_callback(factory: Callable[..., Any], **settings: Any) -> None:
    """Make a callback as a recipe does, and call it through a short training.

    Args:
        factory: The class, or the function that makes it.
        **settings: The recipe's other keys.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    from transformers import TrainerCallback

    from surgeon.testing.short_training import train_with

    offers.callbacks({"callback": factory})
    one, other = factory(**settings), factory(**settings)
    if not isinstance(one, TrainerCallback):
        raise AssertionError(f"the callback is a {type(one).__name__}; expected a transformers.TrainerCallback")
    if one is other:
        raise AssertionError("the factory gives the same callback twice: two trainings would share its state")
    train_with(factory, settings)
