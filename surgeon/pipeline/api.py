"""The public verbs on networks: edit a skeleton, then fill it with weights.

``plan`` stops before the weights, ``apply`` fills the network in memory, :meth:`Prepared.write` streams it
to disk, ``load`` replays the operations on a skeleton and fills it from the artifact.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.artifact import check_output, write
from surgeon.checkpoint.mapping import mapped
from surgeon.checkpoint.pieces import Piece
from surgeon.errors import OperationError, SurgeonWarning, VerificationError, name_nearest_option
from surgeon.graph.tensors import fill, tensors_of
from surgeon.interfaces.record import ATTRIBUTE, record_of
from surgeon.nn.frozen import Frozen
from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.pipeline.integrity import compare_with_manifest, verify_bytes
from surgeon.pipeline.manifest import contents
from surgeon.pipeline.nonfinite import count_nonfinite
from surgeon.pipeline.prepare import Operations, Prepared, as_recipe, prepare
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.make_record import make_record
from surgeon.surgery.opened import Model, OpenedNetwork, OpenOptions
from surgeon.surgery.plan import Plan
from surgeon.surgery.replay import open_from
from surgeon.training.class_names import restore_names


@name_nearest_option
def plan(
    model: Model | None,
    operations: Operations,
    *,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | None = None,
) -> Plan:
    """Say what operations would change. No weight is read and nothing is written.

    A recipe's ``train:`` section is checked, as far as that is possible without its data.

    Args:
        model: What to operate on: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, a
            module in memory; None takes the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        arch: What builds the network, where neither the source nor the recipe says.
        seed: The seed of new values, instead of the recipe's.
        roles: Roles of sites, as ``{"head": "fc"}``, beside the recipe's and instead of those of the same name.
        inputs: The inputs to trace with, instead of the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        SurgeonError: The recipe, the source or an operation is at fault; the class of the error says which.
    """
    plugins = plugins or load_plugins()
    recipe = as_recipe(operations, plugins)
    if recipe.train is not None:
        check_training(recipe, plugins, here=False)
    return prepare(
        model,
        recipe,
        arch=arch,
        seed=seed,
        roles=roles,
        inputs=inputs,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        plugins=plugins,
    ).plan


@name_nearest_option
def apply(
    model: Model | None,
    operations: Operations,
    *,
    inplace: bool = False,
    progress: Callable[[int], None] | None = None,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | None = None,
) -> nn.Module:
    """Apply operations to a model and return the result, filled with its weights.

    Nothing is trained: if the recipe has a ``train:`` section, a :class:`SurgeonWarning` says so, and
    :func:`surgeon.finetune` applies the recipe and trains.

    Args:
        model: What to operate on: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, a
            module in memory; None takes the recipe's ``model``. A module is left as it is unless ``inplace``.
        operations: A recipe, the path of one, one operation, or several.
        inplace: Edit a module in memory itself. The operations are first tried on a skeleton, so that
            an error leaves it as it was.
        progress: Called with a number of bytes each time some have been read.
        arch: What builds the network, where neither the source nor the recipe says.
        seed: The seed of new values, instead of the recipe's.
        roles: Roles of sites, as ``{"head": "fc"}``, beside the recipe's and instead of those of the same name.
        inputs: The inputs to trace with, instead of the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        SurgeonError: The recipe, the source or an operation is at fault; the class of the error says which.
    """
    plugins = plugins or load_plugins()
    recipe = as_recipe(operations, plugins)
    if recipe.train is not None:
        what = f"the train: section of {recipe.path or 'the recipe'} is left aside, so the network is not trained"
        how = "surgeon.finetune(model, recipe) applies the recipe and trains"
        warnings.warn(f"{what}; {how}", SurgeonWarning, stacklevel=3)

    def prepared(*, inplace: bool) -> Prepared:
        return prepare(
            model,
            recipe,
            arch=arch,
            seed=seed,
            roles=roles,
            inputs=inputs,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code,
            plugins=plugins,
            inplace=inplace,
            outputs=False,
        )

    if inplace:
        prepared(inplace=False)
    result = prepared(inplace=inplace)
    edited = result.materialise(progress)
    setattr(edited, ATTRIBUTE, result.record)
    if result.source.module is None:
        edited.eval()
    return edited


@name_nearest_option
def save(
    model: nn.Module, path: str | Path, *, force: bool = False, check: Callable[[Path], object] | None = None
) -> Path:
    """Write a model as an artifact that :func:`load` takes: a folder, ``.safetensors`` or ``.pt``.

    A folder also gets what lay beside the weights that the model was loaded from: tokenizer, processor, licence. A
    single file holds the weights alone.

    Args:
        model: A network that surgeon made, or any whose architecture surgeon can identify.
        path: Where to write; nothing may exist there unless ``force``.
        force: Replace what exists there.
        check: Inspects what was written before it takes its place. If it raises, what was there stays, and what was
            written is kept as ``NAME.rejected``.

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
    write(path, contents(model, pieces, record), force=force, check=check, keep_rejected=True)
    return path


@name_nearest_option
@paused_collection()
def load(
    path: str | Path,
    *,
    arch: Callable[[], nn.Module] | str | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    verify: bool = False,
    plugins: Plugins | None = None,
) -> nn.Module:
    """Load an artifact, or any checkpoint that surgeon reads, in eval mode.

    The weights of a safetensors file are mapped into memory: shared with every process that maps the file, until
    they are written to. The file may be replaced or deleted meanwhile, but must not be overwritten in place.

    Args:
        path: An artifact, or a model in any form that :func:`apply` takes.
        arch: What builds the network before its operations, where the manifest does not say: an architecture's
            name, or a function without arguments.
        key: Which of several state dicts in the file to take.
        trust_pickle: Let pickles in the file run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        verify: Compare all bytes of an artifact with their digests; else the manifest and the small files beside
            the weights are.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe or not as it was written.
        ArchitectureError: The tensors do not fit the network; every one must.
    """
    plugins = with_trust(plugins or load_plugins(), trust_code, path, arch)
    options = OpenOptions(arch=arch, key=key, trust_pickle=trust_pickle, plugins=plugins)
    source = options.source(path)
    if verify:
        verify_bytes(source)
    return load_opened(open_from(source, options))


def load_opened(opened: OpenedNetwork) -> nn.Module:
    """Fill an opened network with its weights, and attach its record; see :func:`load`."""
    flow = opened.flow(checkpoint=opened.checkpoint and mapped(opened.checkpoint))
    flow.check()
    fill(opened.root, flow.value)
    setattr(opened.root, ATTRIBUTE, make_record(opened.source, None))
    restore_names(opened.root)
    return opened.root.eval()


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        tensors: How many tensors the artifact holds; every one fits the replayed network.
        kept: How many of them equal the source's byte for byte; None if no source was given.
        changed: The tensors that surgery kept and that differ from the source (training moved them).
        frozen_changed: The frozen ones among ``changed``: there should be none.
        outputs: The outputs of a forward and their shapes; ``{}`` if it could not be traced.
        digests: How many files equal their recorded digest; 0 where none are recorded (surgeon 0.1.0).
        nonfinite: How many NaN and infinite values each tensor has that has any.
    """

    tensors: int
    kept: int | None
    changed: tuple[str, ...]
    frozen_changed: tuple[str, ...]
    outputs: dict[str, tuple[int, ...]]
    digests: int = 0
    nonfinite: Mapping[str, int] = field(default_factory=dict)


@name_nearest_option
def verify(
    path: str | Path,
    source: str | Path | nn.Module | None = None,
    *,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | None = None,
) -> Verification:
    """Check that an artifact is what its manifest says.

    Its files are compared with their digests and its recipe with the manifest. The network is rebuilt from the
    manifest and the tensors are matched with it; those that surgery kept are compared with the source's, byte for
    byte.

    Args:
        path: The artifact.
        source: What it was made from; without it, nothing is compared.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.

    Raises:
        CheckpointError: A file has changed since it was written.
        VerificationError: It has no manifest or is not what that says, or a frozen tensor differs from the source's.
    """
    plugins = with_trust(plugins or load_plugins(), trust_code, source)
    artifact = open_source(path, plugins=plugins)
    if artifact.checkpoint is None or not artifact.surgeries:
        raise VerificationError(
            f"{path} has no manifest, so there is nothing to compare it with",
            hint="check takes what surgeon apply wrote",
        )
    integrity = verify_bytes(artifact)
    opened = open_from(artifact, OpenOptions(plugins=plugins))
    root = opened.root
    compare_with_manifest(root, artifact)
    try:
        outputs = dict(opened.inspect().trace().outputs)
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
    frozen = frozen_tensors(root)
    moved = tuple(name for name in changed if name in frozen)
    if moved:
        raise VerificationError(
            f"{len(moved)} frozen tensors differ from {source}: {', '.join(moved[:3])}", where=str(path)
        )
    nonfinite = count_nonfinite((name, artifact.checkpoint.read(name)) for name in artifact.checkpoint.entries)
    count = len(dict(tensors_of(root)))
    return Verification(count, kept, tuple(changed), moved, outputs, integrity.files, nonfinite)


check = verify
"""The name of :func:`verify` on the command line."""


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


def frozen_tensors(model: nn.Module) -> set[str]:
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
