"""Run a network before it is written, and record its inputs and outputs; compare them when the artifact is checked.

Equal bytes do not make an equal network: the code around them, of a plugin or a library, may have changed. The
manifest holds how the inputs are made, with a digest of their values, and a sketch of every output
(:mod:`surgeon.graph.sketch`). Small networks are run when they are written; past :data:`RUN` nothing is recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import xxhash
from torch import nn

from surgeon.architectures.limits import check_request
from surgeon.errors import CheckpointError, OperationError, SurgeonError
from surgeon.families.inputs import Inputs, Spec
from surgeon.graph.backends import restored_after
from surgeon.graph.sketch import Sketch, distance, sketch_of, tolerance_of
from surgeon.graph.tensors import fill, tensors_of
from surgeon.graph.unsaved_state import unsaved_state
from surgeon.surgery.compare_state import sketch_state
from surgeon.surgery.inspection import Inspection

RUN = 2**27
"""Bytes of tensors up to which networks are held in memory and run: a ResNet-50 is, a BERT is not."""
KEY = "outputs"
"""The key of a manifest that holds the inputs and the sketches of outputs."""
WRITTEN_OUT = 4096
"""The most elements of a given tensor among the inputs that is recorded by its values."""
UNSTABLE = 0.1
"""The share of a difference that weights changed in their last bits may make: then the network amplifies rounding."""


@dataclass(frozen=True)
class Reference:
    """A forward of a network that is about to be written.

    Attributes:
        tensors: The network's tensors, on the CPU.
        state: Sketches of what no state dict holds, before the forward, less what the forward itself writes.
        inputs: What was fed; None if it did not run.
        outputs: The tensors of the output, by the path to each.
        refusal: Why it did not run.
    """

    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Sketch]
    inputs: Inputs | None = None
    outputs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    refusal: str = ""

    def recorded(self) -> dict[str, Any] | None:
        """Describe inputs and outputs for the manifest; None where nothing ran or the inputs cannot be described."""
        if self.inputs is None:
            return None
        dtype = _dtype(self.tensors)
        try:
            described = {name: _plain(getattr(self.inputs, name)) for name in ("args", "kwargs", "settings")}
        except TypeError:
            return None
        return {
            "inputs": {**described, "digest": _digest(self.inputs, dtype)},
            "tolerance": float(f"{tolerance_of(dtype, *(output.dtype for output in self.outputs.values())):.3g}"),
            "tensors": {name: sketch_of(tensor, exact=False) for name, tensor in self.outputs.items()},
        }


def run_before_writing(model: nn.Module, inspection: Inspection) -> Reference:
    """Run ``model`` in eval mode on the inputs that fit it, and leave it as it was.

    Args:
        model: The network, with its values.
        inspection: Finds the inputs.
    """
    tensors = {name: _apart(tensor) for name, tensor in tensors_of(model)}
    state = sketch_state(model)
    try:
        feed = inspection.inputs()
    except OperationError as error:
        return Reference(tensors, state, refusal=error.message)
    refusal = ""
    for inputs in feed.candidates():
        try:
            outputs, written = _run(model, inputs, tensors)
        except Exception as error:  # a network may raise anything on inputs that do not fit it
            refusal = refusal or first_line(error)
            continue
        lasting = {address: sketch for address, sketch in state.items() if address not in written}
        return Reference(tensors, lasting, inputs, outputs)
    return Reference(tensors, state, refusal=f"inputs {feed.origin} do not run ({refusal})")


def is_small(model: nn.Module) -> bool:
    """Whether the tensors of ``model`` take at most :data:`RUN` bytes."""
    return sum(tensor.nbytes for _, tensor in tensors_of(model)) <= RUN


def forward(model: nn.Module, inputs: Inputs, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run ``model`` in eval mode on the CPU, and return the tensors of its output by the path to each.

    It runs on ``tensors``, for every network that is compared the same: equal values that are laid out differently in
    memory may be summed in another order.
    """
    return _run(model, inputs, tensors)[0]


@dataclass(frozen=True)
class Comparison:
    """How the outputs of a network compare with the recorded ones.

    Attributes:
        equal: How many tensors equal the recorded ones, up to rounding.
        different: How far the others are, in units of their norm.
        note: Why nothing was compared.
    """

    equal: int = 0
    different: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def compare_outputs(model: nn.Module, recorded: Mapping[str, Any], where: str) -> Comparison:
    """Run a loaded network on the recorded inputs and compare its outputs.

    Args:
        model: The network, with its values.
        recorded: What the manifest holds under :data:`KEY`.
        where: The artifact, for errors.

    Raises:
        CheckpointError: The manifest is damaged.
    """
    try:
        inputs = Inputs(**{name: _value(recorded["inputs"][name]) for name in ("args", "kwargs", "settings")})
        digest, tolerance, sketches = recorded["inputs"]["digest"], recorded["tolerance"], dict(recorded["tensors"])
        check_request([], [list(spec.shape) for spec in _specs((inputs.args, inputs.kwargs))], where)
        tensors = {name: tensor.detach() for name, tensor in tensors_of(model)}
        if _digest(inputs, _dtype(tensors)) != digest:
            return Comparison(note="this version of PyTorch draws other random inputs")
        try:
            outputs = forward(model, inputs, tensors)
        except Exception as error:
            return Comparison(different={f"no output ({first_line(error)})": float("inf")})
        different = _different(sketches, outputs, tolerance)
        if different and _is_unstable(model, inputs, tensors, outputs, sketches, different):
            return Comparison(note="the outputs change with the last bits of the weights")
    except SurgeonError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        message = f"its manifest is damaged: {KEY}: {first_line(error)}"
        raise CheckpointError(message, where=where, hint="make the artifact again") from error
    return Comparison(len(sketches) - len(different.keys() & sketches.keys()), different)


def _different(
    sketches: Mapping[str, Sketch], outputs: Mapping[str, torch.Tensor], tolerance: float
) -> dict[str, float]:
    different = {name: float("inf") for name in sketches.keys() ^ outputs.keys()}
    for name in sketches.keys() & outputs.keys():
        if not (far := distance(sketches[name], outputs[name])) <= tolerance:
            different[name] = far
    return dict(sorted(different.items()))


def _is_unstable(
    model: nn.Module,
    inputs: Inputs,
    tensors: Mapping[str, torch.Tensor],
    outputs: Mapping[str, torch.Tensor],
    sketches: Mapping[str, Sketch],
    different: Mapping[str, float],
) -> bool:
    """Whether noise in the last bits of the weights changes the outputs about as much as they differ.

    A detector keeps or drops a box by a threshold, for example.
    """
    draw = torch.Generator().manual_seed(0)
    noisy = {
        name: tensor * (1 + 4 * torch.finfo(tensor.dtype).eps * torch.randn(tensor.shape, generator=draw).to(tensor))
        if tensor.is_floating_point()
        else tensor
        for name, tensor in tensors.items()
    }
    try:
        moved = forward(model, inputs, noisy)
    except Exception:
        return False
    today = {name: sketch_of(outputs[name], exact=False) for name in outputs}
    if today.keys() != moved.keys():
        return True
    return all(
        name in today and distance(today[name], moved[name]) >= min(UNSTABLE * far, 1.0)
        for name, far in different.items()
    )


def _run(
    model: nn.Module, inputs: Inputs, tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], set[str]]:
    """Run ``model``; return its outputs, and the addresses of what it writes beside its state dict."""
    args, kwargs = inputs.tensors("cpu", _dtype(tensors))
    with restored_after(model, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fill(model, lambda name: tensors[name].detach())
        inputs.set(model)
        torch.manual_seed(0)
        before = unsaved_state(model)
        outputs = dict(output_tensors(model(*args, **kwargs)))
        after = unsaved_state(model)
    return outputs, {address for address in before if not _is_same(before[address], after.get(address))}


def _apart(tensor: torch.Tensor) -> torch.Tensor:
    """Return values to run on; buffers are copied, because a forward may write to them."""
    values = tensor.detach().cpu()
    return values if isinstance(tensor, nn.Parameter) else values.clone()


def _is_same(before: torch.Tensor, after: torch.Tensor | None) -> bool:
    if after is None or before is after:
        return after is not None
    return before.shape == after.shape and before.dtype == after.dtype and torch.equal(before, after)


def output_tensors(value: Any, at: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """List the tensors in an output by the path to each; a cache of keys and values is left out."""
    if isinstance(value, torch.Tensor):
        yield at or "output", value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from output_tensors(item, f"{at}.{key}" if at else str(key))


def first_line(error: Exception) -> str:
    """Shorten what a library raised to a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _dtype(tensors: Mapping[str, torch.Tensor]) -> torch.dtype:
    return next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)


def _digest(inputs: Inputs, dtype: torch.dtype) -> str:
    digest = xxhash.xxh3_128()
    for _, tensor in output_tensors(inputs.tensors("cpu", dtype)):
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _specs(value: Any) -> Iterator[Spec]:
    if isinstance(value, Spec):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _specs(item)


def _plain(value: Any) -> Any:
    """Write an argument as JSON: containers and tensors as a mapping with their kind.

    Raises:
        TypeError: It is of another kind.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Spec):
        facts = {name: getattr(value, name) for name in ("low", "high", "last", "first", "values")}
        dtype = None if value.dtype is None else str(value.dtype).removeprefix("torch.")
        return {"spec": {"shape": list(value.shape), "dtype": dtype, **facts}}
    if isinstance(value, torch.Tensor) and value.numel() <= WRITTEN_OUT:
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"list": [_plain(item) for item in value]}
    if type(value) is tuple:
        return {"tuple": [_plain(item) for item in value]}
    raise TypeError(f"{type(value).__name__} cannot be recorded")


def _value(plain: Any) -> Any:
    """Make an argument of what :func:`_plain` gave."""
    if not isinstance(plain, dict):
        return plain
    if not plain:
        raise ValueError("an argument without a kind")
    kind, content = next(iter(plain.items()))
    if kind == "spec":
        first, dtype = content["first"], content["dtype"]
        facts = {
            "shape": tuple(content["shape"]),
            "dtype": None if dtype is None else _torch_dtype(dtype),
            "first": None if first is None else tuple(first),
        }
        return Spec(**{**content, **facts})
    if kind == "tensor":
        return torch.tensor(content, dtype=_torch_dtype(plain["dtype"]))
    if kind == "dict":
        return {key: _value(item) for key, item in content.items()}
    return [_value(item) for item in content] if kind == "list" else tuple(_value(item) for item in content)


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is not a dtype")
    return dtype
