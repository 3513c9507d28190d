"""Trace one forward pass without memory: which modules run, in which order, what they read and produce."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from surgeon.errors import OperationError, suggest
from surgeon.families.inputs import Inputs
from surgeon.graph.backends import assume_placeholders, for_real, on_fake, on_meta, restored_after
from surgeon.graph.edit import all_layers
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.recorder import Recorder, TensorSpec, Visit

if TYPE_CHECKING:
    from surgeon.interfaces.family import Family

T = TypeVar("T")
Evidence = Literal["meta", "fake", "real"]

__all__ = ["Evidence", "TensorSpec", "Trace", "TraceError", "Visit", "trace"]

Backend = Callable[[nn.Module], AbstractContextManager[torch.device]]
"""Substitutes the tensors of a network within a block, and gives the device to put its inputs on."""

BACKENDS: tuple[tuple[Evidence, Backend], ...] = (
    ("meta", on_meta),
    ("fake", on_fake),
    ("real", for_real),
)

PHRASES: dict[Evidence, str] = {"meta": "on meta tensors", "fake": "on fake tensors", "real": "on real tensors"}
"""How messages name the backends."""


class TraceError(OperationError):
    """Report that a network could not be run without its weights, or that a site did not run."""


@dataclass
class Trace:
    """Hold what one forward pass showed.

    Attributes:
        evidence: The backend that it ran on: meta tensors, fake tensors, or small real ones.
        visits: Each site that was called, by its address, in the order of the first calls.
        order: The sites in the order in which their last calls finished.
        outputs: The names and shapes of the network's outputs; a single tensor is called ``output``.
        inputs: The inputs that were fed.
        notes: How inputs were found, and the errors of the backends that were tried before.
    """

    evidence: Evidence
    visits: dict[str, Visit]
    order: list[str]
    outputs: dict[str, tuple[int, ...]]
    inputs: Inputs
    notes: list[str]
    _shapes: dict[str, tuple[int, ...] | None]
    _accessed: dict[str, int]
    """Each site that was called or read, under all of its names, and the index of the first such event."""
    _used: dict[str, int]
    """Like ``_accessed``, without modules whose attribute was only looked up: in ``self.norm(self.layers(x))`` Python
    fetches ``self.norm`` before ``layers`` runs."""

    def features(self, site: str) -> tuple[int, ...] | None:
        """Get the shape that ``site`` produces, or None if it has no batch and channels."""
        shape = self._shapes.get(site)
        return shape if shape is not None and len(shape) > 1 else None

    def shape(self, site: str) -> tuple[int, ...]:
        """Get the shape of the main tensor that the last call of ``site`` returned, batch first.

        Raises:
            TraceError: ``site`` did not finish, or returned no tensor.
        """
        if site not in self._shapes:
            raise TraceError(f"{site or '.'} does not run in a forward", hint=suggest(site, self._shapes))
        shape = self._shapes[site]
        if shape is None:
            raise TraceError(f"{site or '.'} produces no tensor")
        return shape

    def calls(self, site: str) -> int:
        """Count the calls of ``site``."""
        return self.visits[site].calls if site in self.visits else 0

    def accessed_before(self, site: str) -> set[str]:
        """List every site that was called or read before ``site`` first finished, including ``site`` itself.

        All names of shared modules and all parents are included. Looking up a child counts for both the module and
        the child.

        Raises:
            TraceError: ``site`` never finished.
        """
        return self._before(site, self._accessed)

    def used_before(self, site: str) -> set[str]:
        """List the sites of :meth:`accessed_before` without those whose attribute was only looked up."""
        return self._before(site, self._used)

    def used(self) -> set[str]:
        """List every site that was called or read at any time."""
        return set(self._used)

    def used_before_start(self, site: str) -> set[str]:
        """List the sites that were called or read before ``site`` was first called.

        Raises:
            TraceError: ``site`` was never called.
        """
        if site not in self.visits:
            raise TraceError(f"{site or '.'} does not run in a forward", hint=suggest(site, self.order))
        started = self.visits[site].started
        return {name for name, event in self._used.items() if event < started and name != site}

    def below(self, site: str) -> Trace:
        """Restrict the trace to the network at ``site``, as if that had been traced alone."""
        dot = f"{site}."

        def inside(sites: Mapping[str, T]) -> dict[str, T]:
            return {name[len(dot) :]: value for name, value in sites.items() if f"{name}.".startswith(dot)}

        visits = {name: replace(visit, site=name) for name, visit in inside(self.visits).items()}
        return replace(
            self,
            visits=visits,
            order=[name[len(dot) :] for name in self.order if f"{name}.".startswith(dot)],
            outputs=dict(_named(visits[""].output, "")) if "" in visits else {},
            _shapes=inside(self._shapes),
            _accessed=inside(self._accessed),
            _used=inside(self._used),
        )

    def _before(self, site: str, events: Mapping[str, int]) -> set[str]:
        visit = self.visits.get(site)
        if visit is None or not visit.finished:
            raise TraceError(f"{site or '.'} does not run in a forward", hint=suggest(site, self.order))
        sites = {name for name, event in events.items() if event <= visit.finished[0]}
        for name in list(sites):
            while name:
                name = name.rpartition(".")[0]
                sites.add(name)
        return sites


def trace(
    model: nn.Module,
    inputs: Inputs | Any = None,
    *,
    training: bool = False,
    families: Sequence[Family] = (),
    first: Inputs | None = None,
) -> Trace:
    """Run ``model`` once without memory and record what happens.

    Afterwards the network (its tensors, modes, hooks, caches) and the RNG states are restored. It may be a skeleton or
    hold real weights; these are used only if the network runs on neither meta nor fake tensors.

    Args:
        model: The network to run.
        inputs: The inputs to feed; or a recipe's ``inputs:``; or None to find inputs from the network.
        training: Run it in training mode.
        families: Declared facts of plugins, for finding inputs.
        first: The inputs of an earlier trace. They are tried first if they still fit, so that both traces are of the
            same inputs.

    Raises:
        TraceError: It ran on no backend; the message has the errors, and says how to give inputs.
    """
    candidates = inputs if isinstance(inputs, Inputs) else find_inputs(model, inputs, families=families)
    errors: dict[Evidence, str] = {}
    earlier = next(
        (c for c in candidates.candidates() if first and (c.args, c.kwargs) == (first.args, first.kwargs)), candidates
    )
    group: Inputs | None = (
        candidates if earlier is candidates else replace(earlier, alternatives=(), fallback=candidates)
    )
    while group is not None:
        if traced := _try_backends(model, group, errors, training=training):
            return traced
        group = group.fallback
    # the error of a run on real tensors is the clearest; if there was none, show those of the other backends
    messages = [errors["real"]] if "MemoryError" not in errors.get("real", "MemoryError") else list(errors.values())
    raise TraceError(
        f"{type(model).__name__} does not run on inputs {candidates.origin} ({'; '.join(messages)})",
        hint="say what it takes: `inputs: [[2, 3, 64, 64]]` or `inputs: {input_ids: {shape: [2, 8], "
        "dtype: int64, high: 100}}` in the recipe, inputs=… in Python",
    )


def _try_backends(model: nn.Module, inputs: Inputs, errors: dict[Evidence, str], *, training: bool) -> Trace | None:
    """Try every backend with every candidate; add the first error of each backend to ``errors``."""
    for evidence, backend in BACKENDS:
        for candidate in (inputs, *inputs.alternatives):
            if candidate.values and evidence != "real":
                continue
            recorder = Recorder(model)
            try:
                output = _run(model, candidate, backend, recorder, training=training)
            except Exception as error:
                errors.setdefault(evidence, f"{PHRASES[evidence]}, {type(error).__name__}: {_first_line(error)}")
                continue
            return Trace(
                evidence,
                recorder.visits,
                recorder.order,
                dict(_named(output, "")),
                candidate,
                [f"inputs: {candidate.origin}", *errors.values()],
                recorder.shapes,
                recorder.accessed,
                recorder.used,
            )
    return None


def _run(
    model: nn.Module,
    inputs: Inputs,
    backend: Backend,
    recorder: Recorder,
    *,
    training: bool,
) -> Any:
    with _running(model, inputs, backend, training=training) as (args, kwargs), recorder.recording():
        output = model(*args, **kwargs)
        recorder.mark_overwritten()
    return output


@contextmanager
def _running(
    model: nn.Module, inputs: Inputs, backend: Backend, *, training: bool
) -> Iterator[tuple[Sequence[Any], Mapping[str, Any]]]:
    """Substitute the network's tensors within the block, and give the arguments of a call."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with restored_after(model, training=training), all_layers(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user cannot act on warnings about meta tensors
        inputs.set(model)
        # without placeholders there is nothing to assume, and a mode that sees every operation costs time
        assuming = assume_placeholders(inputs.placeholders) if inputs.placeholders else nullcontext()
        with backend(model) as device, assuming:
            yield inputs.tensors(device, dtype, training=training)


def run_again(model: nn.Module, traced: Trace, recording: AbstractContextManager[Any]) -> dict[str, torch.Tensor]:
    """Run ``model`` as it was traced, on the same backend and inputs, within another recording.

    Returns:
        The output tensors by name, as in :attr:`Trace.outputs`.

    Raises:
        Exception: Whatever the network raises; a network that was traced does not.
    """
    backend = dict(BACKENDS)[traced.evidence]
    with _running(model, traced.inputs, backend, training=False) as (args, kwargs), recording:
        return dict(_named_tensors(model(*args, **kwargs), ""))


def _named(output: Any, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the path and shape of each tensor in an output; of a list of detections, only the first image's."""
    return ((path, tuple(tensor.shape)) for path, tensor in _named_tensors(output, name))


def _named_tensors(output: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the path of each tensor, or :class:`TensorSpec`, in an output, and the tensor."""
    dot = f"{name}." if name else ""
    if isinstance(output, (torch.Tensor, TensorSpec)):
        yield name or "output", output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _named_tensors(value, f"{dot}{key}")
    elif isinstance(output, list) and output and all(isinstance(item, Mapping) for item in output):
        yield from _named_tensors(output[0], name)
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from _named_tensors(dict(zip(output._fields, output, strict=True)), name)
    elif isinstance(output, (tuple, list)):
        for position, value in enumerate(output):
            yield from _named_tensors(value, f"{dot}{position}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 160 else f"{text[:157]}…"
