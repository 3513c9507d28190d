"""One forward without memory: which modules run, in which order, what they read and what they produce."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from surgeon.errors import OperationError, suggest
from surgeon.families.inputs import Inputs
from surgeon.graph.backends import for_real, lent, on_fake, on_meta, places_known
from surgeon.graph.edit import all_layers
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.graph.recorder import Recorder, TensorSpec, Visit

if TYPE_CHECKING:
    from surgeon.interfaces.family import Family

T = TypeVar("T")
Evidence = Literal["meta", "fake", "real"]

__all__ = ["Evidence", "TensorSpec", "Trace", "TraceError", "Visit", "trace"]

RUNGS: tuple[tuple[Evidence, Callable[[nn.Module], AbstractContextManager[torch.device]]], ...] = (
    ("meta", on_meta),
    ("fake", on_fake),
    ("real", for_real),
)

WAYS: dict[Evidence, str] = {"meta": "on meta tensors", "fake": "on fake tensors", "real": "for real"}


class TraceError(OperationError):
    """A network that could not be run without its weights, or a site that did not run."""


@dataclass
class Trace:
    """What one forward showed.

    Attributes:
        evidence: What it ran on: meta tensors, fake tensors, or small real ones.
        visits: Each site that was called, by its address, in the order of the first calls.
        order: The sites in the order in which their last calls were completed.
        outputs: The names and shapes of the network's own outputs; a lone tensor is called ``output``.
        inputs: What was fed.
        notes: How inputs were found, and what each rung before the one that held met.
    """

    evidence: Evidence
    visits: dict[str, Visit]
    order: list[str]
    outputs: dict[str, tuple[int, ...]]
    inputs: Inputs
    notes: list[str]
    _shapes: dict[str, tuple[int, ...] | None]
    _accessed: dict[str, int]
    """Each site that was called or read, under all of its names, and the index of the first time."""
    _used: dict[str, int]
    """The same, less those that were fetched from their parents and no more: ``self.norm`` in
    ``self.norm(self.layers(x))``, of which Python takes hold before the layers run."""

    def features(self, site: str) -> tuple[int, ...] | None:
        """The shape of what ``site`` produces, where it has a batch and channels; None for a site without features."""
        found = self._shapes.get(site)
        return found if found is not None and len(found) > 1 else None

    def shape(self, site: str) -> tuple[int, ...]:
        """The shape of the main tensor that the last call of ``site`` returned, batch first.

        Raises:
            TraceError: ``site`` did not run to its end, or returned no tensor.
        """
        if site not in self._shapes:
            raise TraceError(f"{site or '.'} does not run in a forward", hint=suggest(site, self._shapes))
        shape = self._shapes[site]
        if shape is None:
            raise TraceError(f"{site or '.'} produces no tensor")
        return shape

    def calls(self, site: str) -> int:
        """How often ``site`` was called."""
        return self.visits[site].calls if site in self.visits else 0

    def accessed_before(self, site: str) -> set[str]:
        """Every site that was called, or of which something was read, before ``site`` first completed.

        With all names of shared modules, and with every ancestor; a module whose child was read counts
        too, and so does the child. ``site`` itself is one of them.

        Raises:
            TraceError: ``site`` was never completed.
        """
        return self._before(site, self._accessed)

    def used_before(self, site: str) -> set[str]:
        """The sites of :meth:`accessed_before` less those that were merely fetched from their parents."""
        return self._before(site, self._used)

    def used(self) -> set[str]:
        """Every site that was called, or of which something was read, at any time."""
        return set(self._used)

    def used_before_start(self, site: str) -> set[str]:
        """The sites that were called, or of which something was read, before ``site`` was first called.

        Raises:
            TraceError: ``site`` was never called.
        """
        if site not in self.visits:
            raise TraceError(f"{site or '.'} does not run in a forward", hint=suggest(site, self.order))
        started = self.visits[site].started
        return {name for name, event in self._used.items() if event < started and name != site}

    def below(self, site: str) -> Trace:
        """What the trace showed of the network at ``site``, as if it had been traced by itself."""
        dot = f"{site}."

        def inside(found: Mapping[str, T]) -> dict[str, T]:
            return {name[len(dot) :]: value for name, value in found.items() if f"{name}.".startswith(dot)}

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
        found = {name for name, event in events.items() if event <= visit.finished[0]}
        for name in list(found):
            while name:
                name = name.rpartition(".")[0]
                found.add(name)
        return found


def trace(
    model: nn.Module,
    inputs: Inputs | Any = None,
    *,
    training: bool = False,
    families: Sequence[Family] = (),
    first: Inputs | None = None,
) -> Trace:
    """Run ``model`` once without memory and record what happens.

    The network (its tensors, modes, hooks, caches) and all random states are afterwards as they were. It may
    be a skeleton or hold real weights; these are used only where neither meta nor fake tensors will do.

    Args:
        model: The network to run.
        inputs: What to feed; or a recipe's ``inputs:``; or None, to find out from the network.
        training: Run it in training mode.
        families: Declared facts of plugins, for finding inputs.
        first: What an earlier trace ran on, which is tried first where it is still among what may be fed: two traces
            then tell of the same inputs.

    Raises:
        TraceError: It ran in no way; the message says what each met, and how to give inputs.
    """
    given = inputs if isinstance(inputs, Inputs) else find_inputs(model, inputs, families=families)
    met: dict[Evidence, str] = {}
    known = next((c for c in given.candidates() if first and (c.args, c.kwargs) == (first.args, first.kwargs)), given)
    group: Inputs | None = given if known is given else replace(known, alternatives=(), fallback=given)
    while group is not None:
        if found := _climb(model, group, met, training=training):
            return found
        group = group.fallback
    # the plainest error is that of a real run; where there was none, what the others met may tell
    told = [met["real"]] if "MemoryError" not in met.get("real", "MemoryError") else list(met.values())
    raise TraceError(
        f"{type(model).__name__} does not run on inputs {given.origin} ({'; '.join(told)})",
        hint="say what it takes: `inputs: [[2, 3, 64, 64]]` or `inputs: {input_ids: {shape: [2, 8], "
        "dtype: int64, high: 100}}` in the recipe, inputs=… in Python",
    )


def _climb(model: nn.Module, given: Inputs, met: dict[Evidence, str], *, training: bool) -> Trace | None:
    """Try every rung with every candidate; what each rung met first goes to ``met``."""
    for evidence, rung in RUNGS:
        for candidate in (given, *given.alternatives):
            if candidate.values and evidence != "real":
                continue
            recorder = Recorder(model)
            try:
                output = _run(model, candidate, rung, recorder, training=training)
            except Exception as error:
                met.setdefault(evidence, f"{WAYS[evidence]}, {type(error).__name__}: {_first_line(error)}")
                continue
            return Trace(
                evidence,
                recorder.visits,
                recorder.order,
                dict(_named(output, "")),
                candidate,
                [f"inputs: {candidate.origin}", *met.values()],
                recorder.shapes,
                recorder.accessed,
                recorder.used,
            )
    return None


def _run(
    model: nn.Module,
    inputs: Inputs,
    rung: Callable[[nn.Module], AbstractContextManager[torch.device]],
    recorder: Recorder,
    *,
    training: bool,
) -> Any:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with lent(model, training=training), all_layers(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a network warns of on meta tensors concerns nobody
        inputs.set(model)
        with rung(model) as device, places_known(inputs.placeholders), recorder.listening():
            args, kwargs = inputs.tensors(device, dtype, training=training)
            output = model(*args, **kwargs)
            recorder.look_back()
    return output


def _named(output: Any, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors in an output by the path to each; of a list of detections, the first image's."""
    dot = f"{name}." if name else ""
    if isinstance(output, (torch.Tensor, TensorSpec)):
        yield name or "output", tuple(output.shape)
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _named(value, f"{dot}{key}")
    elif isinstance(output, list) and output and all(isinstance(item, Mapping) for item in output):
        yield from _named(output[0], name)
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        yield from _named(dict(zip(output._fields, output, strict=True)), name)
    elif isinstance(output, (tuple, list)):
        for position, value in enumerate(output):
            yield from _named(value, f"{dot}{position}")


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if len(text) <= 160 else f"{text[:157]}…"
