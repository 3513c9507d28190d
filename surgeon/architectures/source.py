"""Open a network: from a reference, a file, a folder, an artifact, or a module in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.optim.swa_utils import AveragedModel

from surgeon.architectures.artifact_record import read_record
from surgeon.architectures.identify import build, identify, match
from surgeon.architectures.registry import is_reference, meant, parse
from surgeon.architectures.ties import with_true_ties
from surgeon.checkpoint.formats import Checkpoint, memory_checkpoint, open_checkpoint
from surgeon.errors import ArchitectureError, CheckpointError
from surgeon.graph.skeleton import skeleton_of
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture
from surgeon.interfaces.match import Match
from surgeon.interfaces.own_packages import scheme_hint
from surgeon.interfaces.record import Record, Surgeries, record_of

if TYPE_CHECKING:
    from surgeon.plugins import Plugins


@dataclass
class Source:
    """A network before surgery, and the location of its values."""

    architecture: Architecture | None
    """What builds it; None for a module in memory that only its author can build."""
    checkpoint: Checkpoint | None
    """Its values; None if the builder initialises them."""
    module: nn.Module | None
    """The module, if it is in memory or in a trusted pickle."""
    location: str
    notes: list[str] = field(default_factory=list)
    surgeries: list[Surgeries] = field(default_factory=list)
    """The surgeries in an artifact's manifest, to be replayed on the skeleton."""
    mapping: dict[str, str] | None = None
    """Name in the skeleton → entry of the checkpoint; None for an artifact, which has the names after replay."""
    missing: list[str] = field(default_factory=list)
    """Names in the skeleton that the checkpoint lacks: an operation must replace them."""
    computed: list[str] = field(default_factory=list)
    """Names in the skeleton that the checkpoint lacks because the architecture computes their values."""
    unexpected: list[str] = field(default_factory=list)
    """Entries of the checkpoint that are known to be unused, and left out."""
    filled: list[str] = field(default_factory=list)
    """Counters (``num_batches_tracked``) that the checkpoint lacks, to be set to 0."""
    record: Record | None = None
    """The history of an artifact, or of a module that surgeon made."""
    provider: ArchitectureProvider | None = field(default=None, repr=False)
    _spare: nn.Module | None = field(default=None, repr=False)

    def skeleton(self) -> nn.Module:
        """Return a new skeleton of the network before surgery, which the caller may edit.

        Raises:
            ArchitectureError: It cannot be built.
        """
        if self.module is not None:
            return skeleton_of(self.module)
        spare, self._spare = self._spare, None
        return spare if spare is not None else build(*self._builder())

    def initialised(self) -> nn.Module:
        """Build the network with its initial values; seed torch first.

        Raises:
            ArchitectureError: It cannot be built.
        """
        provider, architecture = self._builder()
        return provider.build(architecture)

    def _builder(self) -> tuple[ArchitectureProvider, Architecture]:
        if self.architecture is None or self.provider is None:
            raise ArchitectureError(
                "it is not known what built the network before surgery",
                where=self.location,
                hint="give it: --arch python:package.module:function, or load(…, arch=function) in Python",
            )
        return self.provider, self.architecture


def open_source(
    model: str | Path | nn.Module,
    *,
    arch: str | None = None,
    trust_pickle: bool = False,
    key: str | None = None,
    plugins: Plugins,
) -> Source:
    """Identify ``model`` without reading its weights.

    Args:
        model: ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME[@REVISION]``, ``python:package.module:function``, the path
            of a checkpoint, folder or artifact, or a module.
        arch: What built it, if it cannot be identified: a reference as above, or ``hf/CLASS``.
        trust_pickle: Whether a file's pickle may run code.
        key: The key of the state dict in a file with several.
        plugins: The plugins with architecture providers.

    Raises:
        CheckpointError: The file does not exist or cannot be read.
        ArchitectureError: The architecture is unknown, cannot be built, or does not fit the tensors.
    """
    providers = plugins.architectures()
    if isinstance(model, nn.Module):
        return _from_module(model, arch, providers)
    location, path, architecture = str(model), Path(model), None
    if not path.exists() and is_reference(location, list(providers)):
        named = parse(location, list(providers))
        architecture, weights = providers[named.scheme].locate(named.name)
        if weights is None and arch is not None:
            raise ArchitectureError(
                f"{location} is an architecture already", where=f"--arch {arch}", hint="give only one of the two"
            )
        if weights is None:
            return _from_builder(architecture, location, providers)
        path = weights
    try:
        checkpoint = open_checkpoint(path, trust_pickle=trust_pickle, key=key)
    except CheckpointError as error:
        if not path.exists() and (reference := meant(location, providers)):
            error.hint = f"did you mean {reference}?"
        elif not path.exists() and (hint := scheme_hint(location)):
            error.hint = hint
        raise
    checkpoint.location = location
    if arch is not None:
        architecture = _named(arch, providers)
    if checkpoint.manifest is not None:
        return _from_artifact(checkpoint, architecture, providers, plugins)
    if architecture is None and checkpoint.module is not None:
        return _from_pickle(checkpoint, providers)
    if architecture is None:
        return _from_match(identify(checkpoint, providers), providers)
    return _from_match(match(providers[architecture.scheme], architecture, checkpoint), providers)


def _named(arch: str, providers: dict[str, ArchitectureProvider]) -> Architecture:
    try:
        named = parse(arch, list(providers))
    except ArchitectureError as error:
        if reference := meant(arch, providers):
            error.hint = f"did you mean {reference}?"
        raise
    return providers[named.scheme].locate(named.name, weights=False)[0]


def _from_module(module: nn.Module, arch: str | None, providers: dict[str, ArchitectureProvider]) -> Source:
    record = record_of(module)
    if arch is not None:
        architecture: Architecture | None = _named(arch, providers)
    elif record is not None:
        architecture = record.architecture
    else:
        candidates = (provider.of_module(module) for provider in providers.values())
        architecture = next((candidate for candidate in candidates if candidate is not None), None)
    tensors = module.state_dict()
    return Source(
        architecture,
        memory_checkpoint(tensors),
        module,
        type(module).__name__,
        surgeries=list(record.surgeries) if record else [],
        mapping={name: name for name in tensors},
        record=record,
        provider=providers.get(architecture.scheme) if architecture else None,
    )


def _from_pickle(checkpoint: Checkpoint, providers: dict[str, ArchitectureProvider]) -> Source:
    """Use the module in a trusted pickle: strides, dilation and activations are not visible in its tensors."""
    module: nn.Module = checkpoint.module
    while (inner := _wrapped(module)) is not None:
        module = inner
    source = _from_module(module.eval(), None, providers)
    assert source.checkpoint is not None  # a module has its tensors
    source.checkpoint = replace(source.checkpoint, location=checkpoint.location, files=checkpoint.files)
    source.location = checkpoint.location
    source.notes = [*checkpoint.notes, f"the file holds the module itself ({type(module).__name__}), which is used"]
    if source.architecture is None:
        source.notes.append(
            "it is not known what builds this module: to write an artifact, give --arch python:package.module:function"
        )
    return source


def _wrapped(module: nn.Module) -> nn.Module | None:
    """Return the network inside a wrapper for parallel training, compilation or averaging; None without one."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
        return module.module
    inner = getattr(module, "_orig_mod", None)  # torch.compile's OptimizedModule
    return inner if isinstance(inner, nn.Module) else None


def _from_builder(architecture: Architecture, location: str, providers: dict[str, ArchitectureProvider]) -> Source:
    provider = providers[architecture.scheme]
    skeleton = build(provider, architecture)
    notes = [f"{location} has no weights: its values are initialised by its builder"]
    return Source(architecture, None, None, location, notes, provider=provider, _spare=skeleton)


def _from_artifact(
    checkpoint: Checkpoint,
    architecture: Architecture | None,
    providers: dict[str, ArchitectureProvider],
    plugins: Plugins,
) -> Source:
    record = read_record(checkpoint)
    architecture = architecture or record.architecture
    if architecture is not None and architecture.scheme not in providers:
        raise ArchitectureError(
            f"nothing builds {architecture}: no provider of {architecture.scheme!r} is installed",
            where=checkpoint.location,
            hint=plugins.hint(
                "architecture",
                architecture.scheme,
                providers,
                see="surgeon plugins",
                needed={part: origin for past in record.surgeries for part, origin in past.plugins.items()},
            ),
        )
    return Source(
        architecture,
        checkpoint,
        None,
        checkpoint.location,
        list(checkpoint.notes),
        list(record.surgeries),
        record=record,
        provider=providers[architecture.scheme] if architecture else None,
    )


def _from_match(matched: Match, providers: dict[str, ArchitectureProvider]) -> Source:
    provider = providers[matched.architecture.scheme]
    matched = with_true_ties(matched, provider)
    pattern = provider.computed(matched.skeleton) if matched.fit.missing else None
    computed = [name for name in matched.fit.missing if pattern is not None and pattern.search(name)]
    return Source(
        matched.architecture,
        matched.checkpoint,
        None,
        matched.checkpoint.location,
        list(dict.fromkeys([*matched.checkpoint.notes, *matched.notes, *matched.fit.notes()])),
        mapping=matched.fit.mapping,
        missing=[name for name in matched.fit.missing if name not in computed],
        computed=computed,
        unexpected=matched.fit.dropped,
        filled=matched.fit.filled,
        provider=provider,
        _spare=matched.skeleton,
    )
