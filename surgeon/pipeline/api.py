"""Define the public verbs on networks: edit a skeleton, then fill it with weights.

``plan`` stops before the weights, ``apply`` fills the network in memory, :meth:`Prepared.write` streams it to disk,
``load`` replays the operations on a skeleton and fills it from the artifact.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.architectures.source import Source, open_source
from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.checkpoint.artifact import check_output
from surgeon.checkpoint.mapping import mapped
from surgeon.errors import OperationError, SurgeonWarning, VerificationError, name_nearest_option
from surgeon.graph.tensors import fill, tensors_of
from surgeon.interfaces.record import ATTRIBUTE, record_of
from surgeon.nn.frozen import Frozen
from surgeon.pipeline.gc_pause import paused_collection
from surgeon.pipeline.integrity import compare_with_manifest, compare_with_recorded_outputs, verify_bytes
from surgeon.pipeline.nonfinite import count_nonfinite
from surgeon.pipeline.planning import prepare_plan
from surgeon.pipeline.prepare import Operations, Prepared, as_recipe, prepare
from surgeon.pipeline.reference_outputs import is_small, run_before_writing
from surgeon.pipeline.signature import SignedBy, check_signature
from surgeon.pipeline.unregistered import refuse_unregistered
from surgeon.pipeline.verification import Verification
from surgeon.pipeline.write_model import write_model
from surgeon.plugins import Plugins, as_plugins
from surgeon.plugins import load as load_plugins
from surgeon.surgery.inspection import inspection_of
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
    plugins: Plugins | Sequence[str] | None = None,
) -> Plan:
    """Return what operations would change. Reads no weights and writes nothing.

    A recipe's ``train:`` section is checked as far as possible without its data.

    Args:
        model: The network: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory;
            None for the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of new values, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, added to the recipe's or overriding them by name.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        SurgeonError: The recipe, the source or an operation is invalid; the class of the error says which.
    """
    return prepare_plan(
        model,
        operations,
        arch=arch,
        seed=seed,
        roles=roles,
        inputs=inputs,
        key=key,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        plugins=as_plugins(plugins),
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
    plugins: Plugins | Sequence[str] | None = None,
) -> nn.Module:
    """Apply operations to a model and return the result, filled with its weights.

    Nothing is trained: if the recipe has a ``train:`` section, a :class:`SurgeonWarning` says so. Use
    :func:`surgeon.finetune` to apply a recipe and train.

    Args:
        model: The network: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory;
            None for the recipe's ``model``. A module is not changed unless ``inplace``.
        operations: A recipe, the path of one, one operation, or several.
        inplace: Whether to edit the module itself. The operations are tried on a skeleton first, so an error leaves the
            module unchanged.
        progress: Called with the number of bytes after each read.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of new values, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, added to the recipe's or overriding them by name.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        SurgeonError: The recipe, the source or an operation is invalid; the class of the error says which.
    """
    plugins = as_plugins(plugins)
    recipe = as_recipe(operations, plugins)
    if recipe.train is not None:
        warning = f"the train: section of {recipe.path or 'the recipe'} is ignored, so the network is not trained"
        advice = "surgeon.finetune(model, recipe) applies the recipe and trains"
        warnings.warn(f"{warning}; {advice}", SurgeonWarning, stacklevel=3)

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
    """Write a model as an artifact for :func:`load`: a folder, ``.safetensors`` or ``.pt``.

    A folder also gets the companions of the weights that the model was loaded from: tokenizer, processor, licence. A
    single file has the weights only.

    Args:
        model: A network that surgeon made, or any whose architecture surgeon can identify.
        path: The path to write; it must not exist unless ``force``.
        force: Whether to replace what exists.
        check: Inspects the written artifact before it replaces the path. If it raises, the path stays as it was, and
            the rejected artifact is kept as ``NAME.rejected``.

    Raises:
        OutputError: The path exists or cannot be written to.
    """
    check_output(Path(path), force=force, inputs=[])
    plugins = load_plugins()
    record = record_of(model) or make_record(open_source(model, plugins=plugins), None)
    refuse_unregistered(record, Path(path))
    reference = None
    if is_small(model):
        reference = run_before_writing(model, inspection_of(model, plugins, record.surgeries))
    return write_model(model, record, Path(path), plugins, force=force, reference=reference, check=check)


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
    plugins: Plugins | Sequence[str] | None = None,
) -> nn.Module:
    """Load an artifact, or any checkpoint that surgeon reads, in eval mode.

    The weights of a safetensors file are mapped into memory: shared with every process that maps the file, until they
    are written to. The file may be replaced or deleted, but must not be overwritten in place.

    Args:
        path: An artifact, or a model in any form that :func:`apply` takes.
        arch: What builds the network before its operations, if the manifest does not say: an architecture's name, or a
            function without arguments.
        key: Which of several state dicts in the file to use.
        trust_pickle: Whether pickles in the file may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        verify: Whether to compare all bytes of an artifact with their digests, not only the manifest and the small
            files beside the weights.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        CheckpointError: The file is missing, damaged, unsafe or has changed since it was written.
        ArchitectureError: Not every tensor fits the network.
    """
    plugins = with_trust(as_plugins(plugins), trust_code, path, arch)
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


@name_nearest_option
def verify(
    path: str | Path,
    source: str | Path | nn.Module | None = None,
    *,
    signature: SignedBy | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> Verification:
    """Check that an artifact matches its manifest.

    Its files are compared with their digests and its recipe with the manifest. The network is rebuilt from the
    manifest, and the tensors are matched with it. Kept tensors are compared with the source's, byte for byte.

    Args:
        path: The artifact.
        source: The model that the artifact was made from; without it, no tensors are compared.
        signature: Who must have signed the artifact (:func:`surgeon.sign`); checked before anything else is read.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        CheckpointError: A file has changed since it was written.
        VerificationError: The artifact has no manifest or does not match it, is not signed as it must be, or a frozen
            tensor differs from the source's.
    """
    signed = check_signature(path, signature) if signature is not None else 0
    plugins = with_trust(as_plugins(plugins), trust_code, source)
    artifact = open_source(path, plugins=plugins)
    if artifact.checkpoint is None or not artifact.surgeries:
        raise VerificationError(
            f"{path} has no manifest to compare it with",
            hint="check takes the output of surgeon apply",
        )
    integrity = verify_bytes(artifact)
    opened = open_from(artifact, OpenOptions(plugins=plugins, strict=True))
    root = opened.root
    compare_with_manifest(root, artifact)
    try:
        outputs = dict(opened.inspect().trace().outputs)
    except OperationError:
        outputs = {}
    compared = compare_with_recorded_outputs(lambda: load_opened(opened), artifact)
    changed: list[str] = []
    identical = None
    if source is not None:
        origin = open_source(source, trust_pickle=trust_pickle, plugins=plugins)
        pairs = _kept_pairs(artifact.surgeries[-1].kept, origin)
        for name, entry in pairs.items():
            if not same_bytes(artifact.checkpoint.read(name), origin.checkpoint.read(entry)):  # type: ignore[union-attr]
                changed.append(name)
        identical = len(pairs) - len(changed)
    frozen = frozen_tensors(root)
    trained = bool(artifact.record and artifact.record.training)
    moved = tuple(name for name in changed if name in frozen)
    if moved:
        raise VerificationError(
            f"{len(moved)} frozen tensors differ from {source}: {', '.join(moved[:3])}", where=str(path)
        )
    if changed and not trained:
        raise VerificationError(
            f"{len(changed)} kept tensors differ from {source}, and the manifest records no training: "
            f"{', '.join(changed[:3])}",
            where=str(path),
            hint="name the source that it was made from; what surgeon trains is recorded, other training is not",
        )
    nonfinite = count_nonfinite((name, artifact.checkpoint.read(name)) for name in artifact.checkpoint.entries)
    return Verification(
        tensors=len(dict(tensors_of(root))),
        kept=identical,
        changed=tuple(changed),
        frozen_changed=moved,
        outputs=outputs,
        digests=integrity.files,
        same_outputs=compared.equal,
        outputs_note=compared.note,
        nonfinite=nonfinite,
        signed=signed,
    )


check = verify
"""The name of :func:`verify` on the command line."""


def _kept_pairs(sources_of: dict[str, str], origin: Source) -> dict[str, str]:
    """Return the artifact's kept tensors with their entries in the source."""
    if origin.checkpoint is None:
        raise VerificationError(f"{origin.location} has no weights to compare with")
    mapping = origin.mapping or {}
    pairs = {name: mapping.get(old, old) for name, old in sources_of.items()}
    missing = [entry for entry in pairs.values() if entry not in origin.checkpoint.entries]
    if missing:
        raise VerificationError(
            f"{origin.location} lacks {len(missing)} tensors that the artifact kept: {', '.join(missing[:3])}",
            hint="is it what the artifact was made from?",
        )
    return pairs


def frozen_tensors(model: nn.Module) -> set[str]:
    """Return the parameters without gradients, and the statistics of norm layers that stay in eval mode."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for prefix, module in model.named_modules():
        if isinstance(module, Frozen):
            frozen |= {f"{prefix}.{name}".lstrip(".") for name in module._buffers}  # type: ignore[attr-defined]
    return frozen


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two CPU tensors have the same shape, dtype and bytes; so a NaN equals itself."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
