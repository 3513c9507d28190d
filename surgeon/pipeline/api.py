"""The pipeline: edit a skeleton, then let the weights flow in.

``plan`` stops before the weights, ``apply`` fills the network in memory, :meth:`Prepared.write` streams it
to disk, ``load`` replays the operations on a skeleton and fills it from the artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.checkpoint.artifact import check_output, write
from surgeon.checkpoint.mapping import mapped
from surgeon.checkpoint.pieces import Piece
from surgeon.errors import OperationError, VerificationError
from surgeon.graph.tensors import fill, tensors_of
from surgeon.interfaces.record import ATTRIBUTE, record_of
from surgeon.nn.frozen import Frozen
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.pipeline.manifest import contents
from surgeon.pipeline.prepare import Model, Operations, prepare
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.inspection import examination_of
from surgeon.surgery.make_record import make_record
from surgeon.surgery.origins import Flow
from surgeon.surgery.plan import Plan
from surgeon.surgery.replay import open_skeleton


def plan(model: Model | None, operations: Operations, **options: Any) -> Plan:
    """What surgery would change; no weight is read. Takes the options of :func:`prepare`."""
    return prepare(model, operations, **options).plan


def apply(
    model: Model | None,
    operations: Operations,
    *,
    inplace: bool = False,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> nn.Module:
    """Operate on a model and return the result, its weights in place.

    Args:
        model: See :func:`prepare`. A module in memory is left as it is unless ``inplace``.
        operations: A recipe, the path of one, or operations.
        inplace: Edit a module in memory itself. The operations are first tried on a skeleton, so that
            an error leaves it as it was.
        progress: Called with a number of bytes each time some have arrived.
        **options: The options of :func:`prepare`.

    Raises:
        SurgeonError: See :func:`prepare`.
    """
    if inplace:
        prepare(model, operations, outputs=False, **options)
    prepared = prepare(model, operations, inplace=inplace, outputs=False, **options)
    edited = prepared.materialise(progress)
    setattr(edited, ATTRIBUTE, prepared.record)
    if prepared.source.module is None:
        edited.eval()
    return edited


def save(model: nn.Module, path: str | Path, *, force: bool = False) -> Path:
    """Write a model as an artifact that :func:`load` takes: a folder, ``.safetensors`` or ``.pt``.

    A folder also gets what lay beside the weights that the model was loaded from: tokenizer, processor, licence. A
    single file holds the weights alone.

    Args:
        model: A network that surgeon made, or any whose architecture surgeon can tell.
        path: Where to; it must not exist unless ``force``.
        force: Replace what is there.

    Raises:
        OutputError: The place exists or cannot be written to.
    """
    path = Path(path)
    check_output(path, force=force, inputs=[])
    record = record_of(model) or make_record(open_source(model, plugins=load_plugins()), None)
    pieces = [
        Piece(name, tensor.dtype, tuple(tensor.shape), tensor.nbytes, (), lambda t=tensor: t)  # type: ignore[misc]
        for name, tensor in tensors_of(model)
    ]
    write(path, contents(model, pieces, record))
    return path


@paused_collection()
def load(
    path: str | Path,
    *,
    arch: Callable[[], nn.Module] | str | None = None,
    trust_pickle: bool = False,
    plugins: Plugins | None = None,
) -> nn.Module:
    """Load an artifact, or any checkpoint that surgeon reads, in eval mode.

    The weights in safetensors are mapped: shared with whoever else maps the file, until they are written to.
    The file may be replaced or deleted meanwhile, but must not be overwritten in place.

    Args:
        path: An artifact, or anything that :func:`prepare` takes for a model.
        arch: What builds the network before surgery, where the manifest does not say: an architecture's
            name, or a function without arguments.
        trust_pickle: Let pickles in the file execute.
        plugins: The plugins at hand; by default the built-in and installed ones.

    Raises:
        CheckpointError: The file is missing, damaged or unsafe.
        ArchitectureError: The tensors do not fit the network; every one has to.
    """
    plugins = plugins or load_plugins()
    named = arch if isinstance(arch, str) else None
    source = open_source(path, arch=named, trust_pickle=trust_pickle, plugins=plugins)
    build = arch if callable(arch) else None
    root, origins, mapping = open_skeleton(source, plugins, build=build)
    flow = Flow(root, origins, source.checkpoint and mapped(source.checkpoint), mapping, 0)
    flow.check()
    fill(root, flow.value)
    setattr(root, ATTRIBUTE, make_record(source, None))
    return root.eval()


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found out about an artifact.

    Attributes:
        tensors: How many tensors the artifact holds; every one fitted the replayed network.
        kept: How many of them equal the source's byte for byte; None if no source was given.
        changed: The tensors that were kept by surgery and differ from the source (training moved them).
        frozen_changed: Those of ``changed`` that the manifest says are frozen: there should be none.
        outputs: The outputs of a forward and their shapes; ``{}`` where none could be traced.
    """

    tensors: int
    kept: int | None
    changed: tuple[str, ...]
    frozen_changed: tuple[str, ...]
    outputs: dict[str, tuple[int, ...]]


def verify(
    path: str | Path,
    source: str | Path | nn.Module | None = None,
    *,
    trust_pickle: bool = False,
    plugins: Plugins | None = None,
) -> Verification:
    """Check that an artifact is what its manifest says.

    It is rebuilt from its manifest, its tensors are matched with the network's, and those that surgery kept
    are compared with the source's, byte for byte.

    Args:
        path: The artifact.
        source: What it was made from; without it, nothing is compared.
        trust_pickle: Let pickles in the source execute.
        plugins: The plugins at hand.

    Raises:
        VerificationError: It has no manifest, or a frozen tensor differs from the source's.
    """
    plugins = plugins or load_plugins()
    artifact = open_source(path, plugins=plugins)
    if artifact.checkpoint is None or not artifact.surgeries:
        raise VerificationError(
            f"{path} has no manifest, so there is nothing to hold it to", hint="check takes what surgeon apply wrote"
        )
    root, _, _ = open_skeleton(artifact, plugins)
    try:
        outputs = dict(examination_of(root, plugins, artifact.surgeries).trace().outputs)
    except OperationError:
        outputs = {}
    changed: list[str] = []
    kept = None
    if source is not None:
        origin = open_source(source, trust_pickle=trust_pickle, plugins=plugins)
        pairs = _kept_pairs(artifact.surgeries[-1].kept, origin)
        for name, entry in pairs.items():
            if not same_bytes(artifact.checkpoint.read(name), origin.checkpoint.read(entry)):  # type: ignore[union-attr]
                changed.append(name)
        kept = len(pairs) - len(changed)
    frozen = _frozen_tensors(root)
    moved = tuple(name for name in changed if name in frozen)
    if moved:
        raise VerificationError(
            f"{len(moved)} frozen tensors differ from {source}: {', '.join(moved[:3])}", where=str(path)
        )
    return Verification(len(dict(tensors_of(root))), kept, tuple(changed), moved, outputs)


def _kept_pairs(kept: dict[str, str], origin: Source) -> dict[str, str]:
    """The artifact's kept tensors, with the entries of the source that they come from."""
    if origin.checkpoint is None:
        raise VerificationError(f"{origin.location} has no weights to compare with")
    mapping = origin.mapping or {}
    pairs = {name: mapping.get(old, old) for name, old in kept.items()}
    lost = [entry for entry in pairs.values() if entry not in origin.checkpoint.entries]
    if lost:
        raise VerificationError(
            f"{origin.location} lacks {len(lost)} tensors that the artifact kept: {', '.join(lost[:3])}",
            hint="is it what the artifact was made from?",
        )
    return pairs


def _frozen_tensors(model: nn.Module) -> set[str]:
    """Parameters that do not train, and the statistics of norms that stay in eval mode."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, Frozen):
            frozen |= {f"{prefix}.{name}".lstrip(".") for name in module._buffers}  # type: ignore[attr-defined]
    return frozen


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors on the CPU have the same shape, dtype and bytes; a NaN equals itself then."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
